rule convert:
    input:
        plan.raw_manifests,
    output:
        train="results/data/{dataset}_{model_version}_{mode}/train.jsonl",
        validation="results/data/{dataset}_{model_version}_{mode}/validation.jsonl",
        test="results/data/{dataset}_{model_version}_{mode}/test.jsonl",
        summary="results/data/{dataset}_{model_version}_{mode}/summary.json",
    log:
        "results/logs/convert/{dataset}_{model_version}_{mode}.log",
    benchmark:
        "results/benchmarks/convert/{dataset}_{model_version}_{mode}.tsv"
    conda:
        "../envs/workflow.yaml"
    params:
        settings=plan.settings("convert"),
        mixture=plan.mixture,
    message:
        "Convert {wildcards.dataset} {wildcards.model_version} {wildcards.mode}"
    shell:
        "python -m workflow_scripts.convert"
        " --dataset {wildcards.dataset} --model_version {wildcards.model_version} --mode {wildcards.mode}"
        " 2>&1 | tee {log}"
