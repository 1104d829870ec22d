"""Log-probabilities of prompts by vLLM: for an interpreter that has vLLM, and nothing of this project.

vLLM 0.33 wants transformers below 5.21, so it lies beside the project and not in it. Names are those of its `LLM`,
`SamplingParams` and `RequestOutput`.
"""

import json
import os
import sys


def main(asked: str, answered: str) -> None:
    """Score the prompts of the JSON file `asked`, {model, longest, prompts: [{ids, image}]}, into `answered`.

    An image's tokens are one placeholder in `ids`. Answers hold the ids as vLLM ran them, and the log-probability of each
    but the first after those before it.
    """
    os.environ |= {"VLLM_NO_USAGE_STATS": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    from PIL import Image
    from vllm import LLM, SamplingParams

    with open(asked) as file:
        request = json.load(file)
    engine = LLM(
        model=request["model"],
        dtype="bfloat16",
        max_model_len=request["longest"],
        gpu_memory_utilization=0.4,
        enforce_eager=True,  # a few prompts: no graphs are worth their time
        limit_mm_per_prompt={"image": 1, "video": 0},
    )
    prompts = [
        {"prompt_token_ids": one["ids"], "multi_modal_data": {"image": Image.open(one["image"])}}
        for one in request["prompts"]
    ]
    sampling = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=1, detokenize=False)
    outputs = engine.generate(prompts, sampling, use_tqdm=False)
    answers = [
        {
            "ids": list(output.prompt_token_ids),
            "scores": [
                found[token].logprob
                for token, found in list(zip(output.prompt_token_ids, output.prompt_logprobs, strict=True))[
                    1:
                ]
            ],
        }
        for output in outputs
    ]
    with open(answered, "w") as file:
        json.dump(answers, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
