"""The table of docs/your-data.md that lists the reasons for rejection.

python -m tests.reasons_table
"""

from cocoseg.coco.rejections import Reason


def reasons_table() -> str:
    """One row per reason, as Markdown."""
    rows = [f"| `{reason}` | {reason.meaning} | {reason.remedy} |" for reason in Reason]
    return "\n".join(["| reason | meaning | what to do |", "|---|---|---|", *rows])


if __name__ == "__main__":
    print(reasons_table())
