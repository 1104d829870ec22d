"""The versions of what the stages make: whoever changes code so that a stage's results change raises its number.

Each stage records its number. The report marks the results of other numbers than these, and training does not go on
from checkpoints of another. An update alone reruns nothing: `snakemake --forcerun sft` does.
"""

from collections.abc import Mapping

RESULTS = {
    "download": 1,
    # 2: image_disjoint keeps train and validation apart too; 3: records have linked_id;
    # 4: what looks alike too, by near_duplicates: remove
    "convert": 4,
    "validate": 2,  # 2: leaked_images
    "sft": 1,
    "preferences": 2,  # 2: each answer has random numbers of its own
    "dpo": 2,  # 2: validated on images that SFT has not seen
    "ask": 1,
    "evaluate": 2,  # 2: of kept answers; a tie of SFT and DPO keeps SFT
}
Recorded = Mapping[str, int | None]  # by stage; None: from before numbers were recorded
UNKNOWN: Recorded = dict.fromkeys(RESULTS)


def others(recorded: Recorded) -> str:
    """The stages whose `recorded` version is not the present one, such as "sft 1 (now 2)"; "" for none."""
    return ", ".join(
        f"{stage} {'of no version' if number is None else number} (now {RESULTS.get(stage, 'of no version')})"
        for stage, number in recorded.items()
        if number != RESULTS.get(stage)
    )
