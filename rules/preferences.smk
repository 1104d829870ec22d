rule preferences:
    input:
        train="<results>/data/{dataset}_{model_version}_{mode}/train.jsonl",
        validation="<results>/data/{dataset}_{model_version}_{mode}/validation.jsonl",
        test="<results>/data/{dataset}_{model_version}_{mode}/test.jsonl",
        # It must have passed; that it was looked at again changes nothing.
        validated=ancient("<results>/data/{dataset}_{model_version}_{mode}/validation.json"),
        sft="<results>/sft/{dataset}_{model_version}_{mode}/metrics.json",
        own=plan.preference_files,
    output:
        pairs="<results>/preferences/{dataset}_{model_version}_{mode}.jsonl",
        validation="<results>/preferences/{dataset}_{model_version}_{mode}.validation.jsonl",
        summary="<results>/preferences/{dataset}_{model_version}_{mode}.json",
    log:
        "<results>/logs/preferences/{dataset}_{model_version}_{mode}.log",
    benchmark:
        "<results>/benchmarks/preferences/{dataset}_{model_version}_{mode}.tsv"
    conda:
        "../envs/workflow.yaml"
    threads: plan.threads("preferences")
    resources:
        **plan.resources("preferences"),
        **requests.of("preferences"),
    params:
        settings=plan.settings("preferences"),
    shell:
        "MEDVQA_LOG={log} python -m workflow_scripts.preferences"
        " --dataset {wildcards.dataset} --model_version {wildcards.model_version} --mode {wildcards.mode}"
        " 2>&1 | tee {log}"
