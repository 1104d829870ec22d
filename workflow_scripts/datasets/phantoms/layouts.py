"""Sets of phantoms in the raw layouts of SLAKE, VQA-RAD and PathVQA, byte for byte the same every time.

Each writer takes the folder to fill, the number of images and a seed. Images go to train, validation and
test about 7:1:2 and are never shared by two splits, two sets or two seeds.
"""

import io
import random
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workflow_scripts.base.errors import UserError
from workflow_scripts.base.files import write_json, write_text
from workflow_scripts.datasets import phantoms
from workflow_scripts.datasets.phantoms.drawing import LABELS
from workflow_scripts.datasets.records import SPLITS

_RADIOLOGY = ("chest", "head", "abdomen")
_PATHOLOGY = ("tissue", "chest", "tissue", "head", "tissue", "abdomen")
_SETS = ("slake", "rad", "pathvqa")
_SEEDS_PER_SET = 100_000

_SLAKE_SPLIT_FILES = {"train": "train.json", "validation": "validate.json", "test": "test.json"}
_SLAKE_LOCATIONS = {"chest": "Lung", "head": "Brain", "abdomen": "Abdomen"}
_SLAKE_KNOWLEDGE = {
    "en_organ.csv": ("organ#attribute#value", "Heart#function#promote blood flow", "Lung#function#breathe"),
    "en_organ_rel.csv": ("organ#attribute#value", "Heart#belong to#Circulatory System"),
    "en_disease.csv": ("disease#attribute#value", "Nodule#location#Lung", "Stone#location#Liver, Kidney"),
    "organ.csv": ("entity,property,value", "心脏,功能,推动血液流动", "肺,功能,呼吸"),
    "organ_rel.csv": ("entity,property,value", "心脏,属于,循环系统"),
    "disease.csv": ("disease,relation,object", "结节,发病部位,肺", "结石,发病部位,肝脏，肾脏"),
}
_RAD_ORGANS = {"chest": "CHEST", "head": "HEAD", "abdomen": "ABD"}
_RAD_TYPES = {"Modality": "MODALITY", "Position": "POS", "Abnormality": "ABN", "Size": "SIZE"}


def write_slake(folder: Path, images: int, seed: int) -> None:
    """SLAKE: English and Chinese questions, masks, boxes and a knowledge graph."""
    rows: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    qid = 0
    for number, split, scene in _scenes("slake", images, seed, _RADIOLOGY):
        about_image = list(_slake_rows(scene, number + 1))
        for row in about_image:
            rows[split].append({**row, "qid": qid})
            qid += 1
        place = Path(folder) / "imgs" / f"xmlab{number + 1}"
        _write_jpeg(scene, place / "source.jpg")
        phantoms.mask(scene).save(place / "mask.png")
        write_json(place / "detection.json", phantoms.boxes(scene))
        write_json(place / "question.json", about_image)
    for split, file_name in _SLAKE_SPLIT_FILES.items():
        write_json(Path(folder) / file_name, rows[split])
    for file_name, lines in _SLAKE_KNOWLEDGE.items():
        write_text(Path(folder) / "KG" / file_name, "\n".join(lines) + "\n")
    labels = sorted((label, name.title()) for name, label in LABELS.items())
    write_text(Path(folder) / "mask.txt", "".join(f"{label}:{name}\n" for label, name in labels))


def _slake_rows(scene: phantoms.Scene, img_id: int) -> Iterator[dict[str, Any]]:
    for language in ("en", "zh"):
        for question in phantoms.questions(scene, language):
            yield {
                "img_id": img_id,
                "img_name": f"xmlab{img_id}/source.jpg",
                "question": question.text,
                "answer": question.answer,
                "q_lang": language,
                "location": _SLAKE_LOCATIONS[scene.family],
                "modality": scene.modality,
                "answer_type": "CLOSED" if question.closed else "OPEN",
                "base_type": "vqa",
                "content_type": question.type,
                "triple": ["vhead", "_", "_"],
            }


def write_rad(folder: Path, images: int, seed: int) -> None:
    """VQA-RAD: freeform questions, half of them with a linked paraphrase; no validation split."""
    rows: list[dict[str, Any]] = []
    chance = random.Random(f"rad {seed}")
    for number, split, scene in _scenes("rad", images, seed, _RADIOLOGY):
        image_name = f"synpic{10_000 + number}.jpg"
        _write_jpeg(scene, Path(folder) / "VQA_RAD Image Folder" / image_name)
        for row in _rad_rows(scene, image_name, chance):
            prefix = "test_" if split == "test" else ""
            rows.append({"qid": len(rows), "phrase_type": prefix + row.pop("phrase_type"), **row})
    write_json(Path(folder) / "VQA_RAD Dataset Public.json", rows)


def _rad_rows(scene: phantoms.Scene, image_name: str, chance: random.Random) -> Iterator[dict[str, Any]]:
    case = _uuid(chance)
    wordings = zip(phantoms.questions(scene), phantoms.questions(scene, rephrased=True), strict=True)
    for place, (asked, rephrased) in enumerate(wordings):
        linked = place % 2 == 0
        row = {
            "phrase_type": "freeform",
            "qid_linked_id": _uuid(chance),
            "image_case_url": f"https://phantoms.invalid/case?id={case}",
            "image_name": image_name,
            "image_organ": _RAD_ORGANS[scene.family],
            "evaluation": "not evaluated",
            "question": asked.text,
            "question_rephrase": rephrased.text if linked else "NULL",
            "question_relation": "Strict Agreement" if linked else "NULL",
            "question_frame": "NULL",
            "question_type": _RAD_TYPES[asked.type],
            "answer": asked.answer,
            "answer_type": "CLOSED" if asked.closed else "OPEN",
        }
        yield dict(row)
        if linked:
            yield row | {"phrase_type": "para", "question": rephrased.text, "question_rephrase": asked.text}


def _uuid(chance: random.Random) -> str:
    return str(uuid.UUID(int=chance.getrandbits(128)))


def write_pathvqa(folder: Path, images: int, seed: int) -> None:
    """PathVQA as the hub has it: a parquet file a split, each row with its image's bytes; half is tissue."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    for number, split, scene in _scenes("pathvqa", images, seed, _PATHOLOGY):
        image = {"bytes": _jpeg(scene), "path": f"{split}_{number:04}.jpg"}
        for question in phantoms.questions(scene):
            rows[split].append({"image": image, "question": question.text, "answer": question.answer})
    schema = pa.schema(
        [
            ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            ("question", pa.string()),
            ("answer", pa.string()),
        ]
    )
    for split in SPLITS:
        file = Path(folder) / "data" / f"{split}-00000-of-00001.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        # A dictionary without a limit keeps the bytes of an image once, however many rows it has.
        pq.write_table(pa.Table.from_pylist(rows[split], schema), file, dictionary_pagesize_limit=2**30)


def _scenes(
    set_name: str, images: int, seed: int, families: tuple[str, ...]
) -> Iterator[tuple[int, str, phantoms.Scene]]:
    """(number, split, scene) of each image; families take turns, so that every split has its share."""
    if not 3 <= images <= _SEEDS_PER_SET:
        raise UserError(f"{set_name} phantoms: cannot make {images} images; ask for 3 to {_SEEDS_PER_SET}")
    first = (seed * len(_SETS) + _SETS.index(set_name)) * _SEEDS_PER_SET
    validation, test = max(1, round(0.1 * images)), max(1, round(0.2 * images))
    for number in range(images):
        left = images - number
        split = "train" if left > validation + test else "validation" if left > test else "test"
        yield (
            number,
            split,
            phantoms.scene(phantoms.data_seed(first + number), families[number % len(families)]),
        )


def _jpeg(scene: phantoms.Scene) -> bytes:
    buffer = io.BytesIO()
    phantoms.draw(scene).save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def _write_jpeg(scene: phantoms.Scene, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_jpeg(scene))


WRITERS = {"slake": write_slake, "rad": write_rad, "pathvqa": write_pathvqa}
