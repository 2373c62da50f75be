"""The scale bench in tables (Markdown)."""
from __future__ import annotations
def report(results, arguments):
    return "\n".join(str({k:(v if not isinstance(v,list) or len(v)<6 else '...') for k,v in r.__dict__.items()}) for r in results)
