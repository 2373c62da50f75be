"""Which of reasoning-gym's datasets are scored here, and which are refused by name.

Every scorer of reasoning-gym 0.1.25 was read and attacked before its name came on one of these lists. A dataset
that is on none of them, from another version or a plug-in, is refused: its scorer may evaluate the answer.
"""

from __future__ import annotations

from swarmd.system.exits import ConfigurationError

REPLACED = frozenset(
    {
        "binary_matrix", "bitwise_arithmetic", "countdown", "intermediate_integration", "n_queens",
        "number_sorting", "polynomial_multiplication", "puzzle24", "simple_integration", "spiral_matrix",
        "string_insertion",
    }
)  # fmt: skip
"""Their original scorers evaluate text as Python; scorers of our own take their place."""

BOUNDED = frozenset(
    {
        "acre", "arc_agi", "boxnet", "codeio", "coin_flip", "complex_arithmetic", "figlet_font", "game_of_life",
        "graph_color", "group_anagrams", "jugs", "knight_swap", "palindrome_partitioning",
        "polynomial_equations", "prime_factorization", "propositional_logic", "quantum_lock", "rubiks_cube",
        "rush_hour", "spell_backward", "tower_of_hanoi", "word_ladder",
    }
)  # fmt: skip
"""Their original scorers can be made to hang, to take all memory or to raise: the worker's limits contain them."""

HARMLESS = frozenset(
    {
        "ab", "advanced_geometry", "aiw", "arc_1d", "base_conversion", "basic_arithmetic", "bf",
        "binary_alternation", "caesar_cipher", "calendar_arithmetic", "chain_sum", "circuit_logic",
        "color_cube_rotation", "count_bits", "count_primes", "course_schedule", "cryptarithm",
        "decimal_arithmetic", "decimal_chain_sum", "dice", "emoji_mystery", "family_relationships",
        "fraction_simplification", "futoshiki", "game_of_life_halting", "gcd", "gsm_symbolic",
        "isomorphic_strings", "kakurasu", "knights_knaves", "largest_island", "lcm", "leg_counting",
        "letter_counting", "letter_jumble", "list_functions", "mahjong_puzzle", "manipulate_matrix", "maze",
        "mini_sudoku", "modulo_grid", "needle_haystack", "number_filtering", "number_format", "number_sequence",
        "palindrome_generation", "path_star", "pool_matrix", "power_function", "products", "ransom_note",
        "rearc", "rectangle_count", "rotate_matrix", "rotten_oranges", "self_reference", "sentence_reordering",
        "shortest_path", "simple_equations", "simple_geometry", "sokoban", "string_manipulation",
        "string_splitting", "string_synthesis", "sudoku", "survo", "syllogism", "time_intervals", "tsumego",
        "word_sequence_reversal", "word_sorting", "zebra_puzzles",
    }
)  # fmt: skip
"""Their original scorers take linear time and evaluate nothing; they run under the same limits."""

SCORABLE = REPLACED | BOUNDED | HARMLESS

REFUSED: frozenset[str] = frozenset({"composite"})
"""In reasoning-gym's registry, but no dataset of its own: it has neither tasks nor a scorer."""


class UnscorableDataset(ConfigurationError):
    """A dataset whose answers are not scored here."""


def check_scorable(dataset: str) -> None:
    """Raises UnscorableDataset, with the name and the reason, for a dataset whose answers cannot be scored."""
    if dataset in SCORABLE:
        return
    if dataset in REFUSED:
        raise UnscorableDataset(
            f"dataset {dataset!r} cannot be trained on: it only combines others; name those, with their weights"
        )
    raise UnscorableDataset(
        f"dataset {dataset!r} cannot be trained on: its scorer is not among those known to be safe "
        f"({len(SCORABLE)} datasets of reasoning-gym 0.1.25)"
    )
