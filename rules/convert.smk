rule convert:
    input:
        plan.raw_manifests,
        terms=plan.terms if plan.config.data.terminology == "canonical" else [],
    output:
        train="<results>/data/{dataset}_{model_version}_{mode}/train.jsonl",
        validation="<results>/data/{dataset}_{model_version}_{mode}/validation.jsonl",
        test="<results>/data/{dataset}_{model_version}_{mode}/test.jsonl",
        summary="<results>/data/{dataset}_{model_version}_{mode}/summary.json",
    log:
        "<results>/logs/convert/{dataset}_{model_version}_{mode}.log",
    benchmark:
        "<results>/benchmarks/convert/{dataset}_{model_version}_{mode}.tsv"
    conda:
        "../envs/workflow.yaml"
    threads: plan.threads("convert")
    resources:
        **plan.resources("convert"),
        **requests.of("convert"),
    params:
        settings=plan.conversion,
    shell:
        "MEDVQA_LOG={log} python -m workflow_scripts.convert"
        " --dataset {wildcards.dataset} --model_version {wildcards.model_version} --mode {wildcards.mode}"
        " 2>&1 | tee {log}"
