rule validate:
    input:
        train="<results>/data/{dataset}_{model_version}_{mode}/train.jsonl",
        validation="<results>/data/{dataset}_{model_version}_{mode}/validation.jsonl",
        test="<results>/data/{dataset}_{model_version}_{mode}/test.jsonl",
        summary="<results>/data/{dataset}_{model_version}_{mode}/summary.json",
        model="<fetched>/models/{model_version}_{mode}/manifest.json",
        pairs=plan.preference_files,
    output:
        summary="<results>/data/{dataset}_{model_version}_{mode}/validation.json",
        page=report(
            "<results>/data/{dataset}_{model_version}_{mode}/validation.html",
            caption="../docs/captions/validation.rst",
            category="Data",
            labels={"run": "{dataset}_{model_version}_{mode}"},
        ),
    log:
        "<results>/logs/validate/{dataset}_{model_version}_{mode}.log",
    benchmark:
        "<results>/benchmarks/validate/{dataset}_{model_version}_{mode}.tsv"
    conda:
        "../envs/workflow.yaml"
    threads: plan.threads("validate")
    resources:
        **plan.resources("validate"),
        **requests.of("validate"),
    params:
        settings=plan.settings("validate"),
    shell:
        "MEDVQA_LOG={log} python -m workflow_scripts.validate"
        " --dataset {wildcards.dataset} --model_version {wildcards.model_version} --mode {wildcards.mode}"
        " 2>&1 | tee {log}"
