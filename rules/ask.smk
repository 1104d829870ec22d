rule ask:
    input:
        plan.asked_model,
        validation="<results>/data/{dataset}_{model_version}_{mode}/validation.jsonl",
        test="<results>/data/{dataset}_{model_version}_{mode}/test.jsonl",
    output:
        answers="<results>/answers/{dataset}_{model_version}_{mode}/{model}.{variant}.jsonl",
        summary="<results>/answers/{dataset}_{model_version}_{mode}/{model}.{variant}.json",
    log:
        "<results>/logs/ask/{dataset}_{model_version}_{mode}/{model}.{variant}.log",
    benchmark:
        "<results>/benchmarks/ask/{dataset}_{model_version}_{mode}/{model}.{variant}.tsv"
    conda:
        "../envs/workflow.yaml"
    threads: plan.threads("ask")
    resources:
        **plan.resources("ask"),
        **requests.of("ask"),
    params:
        settings=plan.settings("ask"),
    shell:
        "MEDVQA_LOG={log} python -m workflow_scripts.ask"
        " --dataset {wildcards.dataset} --model_version {wildcards.model_version} --mode {wildcards.mode}"
        " --model {wildcards.model} --variant {wildcards.variant} 2>&1 | tee {log}"
