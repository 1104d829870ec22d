"""A page on which a person drops a picture and asks a model about it, in several turns.

gradio is no dependency of ours: it asks for an older Pillow, and works with ours (requirements-page.lock). Uploads lie in a
folder that goes with the server.
"""

import importlib.util
import os
import socket
import tempfile
from pathlib import Path
from typing import Any

from workflow_scripts.base.errors import UserError
from workflow_scripts.datasets.pictures.images import open_image
from workflow_scripts.datasets.records import Message
from workflow_scripts.evaluation.conversation import Reply
from workflow_scripts.stages.talk import Examined

HOST = "127.0.0.1"
# By the browser's language.
TEXTS = {
    "en": {
        "picture": "Picture (DICOM too)",
        "shown": "As the model sees it",
        "question": "Question",
        "ask": "Ask",
        "again": "Start again",
        "without": "Answer without the picture, too",
        "thought": "Thought",
        "seconds": "s",
        "blank": "without the picture",
        "note": "For research on benchmarks. No medical device: nothing here may decide about a patient.",
        "unformed": "not in the form that the model was trained on",
        "cut": "cut off",
    },
    "zh": {
        "picture": "图片（支持 DICOM）",
        "shown": "模型看到的图像",
        "question": "问题",
        "ask": "提问",
        "again": "重新开始",
        "without": "同时给出不看图片时的回答",
        "thought": "思考过程",
        "seconds": "秒",
        "blank": "不看图片时",
        "note": "仅供基准研究使用，不是医疗器械：不得据此对患者作任何决定。",
        "unformed": "不符合训练时的回答格式",
        "cut": "被截断",
    },
}
FONTS = ["system-ui", "Noto Sans CJK SC", "Microsoft YaHei", "PingFang SC", "sans-serif"]  # none is fetched


def installed() -> None:
    """A UserError where there is no gradio."""
    if importlib.util.find_spec("gradio") is None:
        raise UserError(
            "the page needs gradio, which is not installed; `make page` adds it (`pip install gradio` would put an older "
            "Pillow in the place of ours), or use `ask`"
        )


def serve(place: Examined, port: int) -> None:
    """Serve the page of the model in `place` at `port`, until Ctrl-C."""
    with socket.socket() as probe:
        if probe.connect_ex((HOST, port)) == 0:
            raise UserError(f"port {port} is in use; take another --port")
    with tempfile.TemporaryDirectory() as uploads:
        # Before gradio is imported: no statistics leave the machine, and pictures go with the server.
        os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": uploads}
        import gradio

        built, theme, texts = page(place)
        print(f"http://{HOST}:{port} shows the page; Ctrl-C ends it.", flush=True)
        built.launch(
            server_name=HOST,
            server_port=port,
            share=False,
            quiet=True,
            theme=theme,
            i18n=texts,
            footer_links=[],
            max_file_size=200 * gradio.FileSize.MB,
        )


def page(place: Examined) -> tuple[Any, Any, Any]:
    """The page of the model in `place`, its theme and its texts."""
    import gradio

    texts = gradio.I18n(**TEXTS)
    with gradio.Blocks(title=place.path.name, delete_cache=(600, 3600)) as built:
        gradio.Markdown(f"### {place.path.name}")
        gradio.Markdown(texts("note"))
        messages = gradio.State([])
        with gradio.Row():
            with gradio.Column(scale=1):
                upload = gradio.File(label=texts("picture"), type="filepath", height=120)
                shown = gradio.Image(label=texts("shown"), interactive=False, buttons=[])
                without = gradio.Checkbox(label=texts("without"))
            with gradio.Column(scale=2):
                chat = gradio.Chatbot(height=480, show_label=False, buttons=["copy"])
                question = gradio.Textbox(label=texts("question"), lines=1, max_lines=4)
                with gradio.Row():
                    again = gradio.Button(texts("again"))
                    ask = gradio.Button(texts("ask"), variant="primary")

        def show(path: str | None) -> tuple[Any, list[Any], list[Message]]:
            try:
                return (open_image(Path(path)) if path else None), [], []
            except UserError as error:
                raise gradio.Error(str(error)) from error

        def answer(
            text: str,
            path: str | None,
            blank: bool,
            turns: list[Message],
            said: list[Any],
            request: gradio.Request,
        ) -> tuple[str, list[Message], list[Any]]:
            own = TEXTS["zh" if request.headers.get("accept-language", "").startswith("zh") else "en"]
            if not text.strip():
                return text, turns, said
            talk = place.conversation([Path(path)] if path else [], turns)
            said = [*said, {"role": "user", "content": text}]
            without_it = talk.ask_blank(text) if blank and path else None
            said += _bubbles(talk.ask(text), without_it, own)
            return "", talk.messages, said

        upload.change(show, upload, [shown, chat, messages])
        again.click(lambda: ([], []), None, [chat, messages])
        for event in (ask.click, question.submit):
            event(answer, [question, upload, without, messages, chat], [question, messages, chat])
    return built, gradio.themes.Soft(font=FONTS, font_mono=["monospace"]), texts


def _bubbles(reply: Reply, blank: Reply | None, own: dict[str, str]) -> list[dict[str, Any]]:
    """The thought, folded away, and the answer with the time that it took and what was answered without the picture."""
    notes = [f"{reply.seconds:.1f} {own['seconds']}"]
    if reply.truncated:
        notes.append(own["cut"])
    elif reply.answer is None:
        notes.append(own["unformed"])
    if blank:
        notes.append(f"{own['blank']}: {blank.shown}")
    answer = {"role": "assistant", "content": f"{reply.shown}\n\n*{'; '.join(notes)}*"}
    if not reply.thought:
        return [answer]
    folded = {"title": own["thought"], "status": "done"}
    return [{"role": "assistant", "content": reply.thought, "metadata": folded}, answer]
