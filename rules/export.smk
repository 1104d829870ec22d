rule export:
    input:
        evaluation="<results>/eval/{dataset}_{model_version}_{mode}.json",
        sft="<results>/sft/{dataset}_{model_version}_{mode}/metrics.json",
        dpo="<results>/dpo/{dataset}_{model_version}_{mode}/metrics.json",
    output:
        "<results>/export/{dataset}_{model_version}_{mode}/README.md",
    log:
        "<results>/logs/export/{dataset}_{model_version}_{mode}.log",
    benchmark:
        "<results>/benchmarks/export/{dataset}_{model_version}_{mode}.tsv"
    conda:
        "../envs/workflow.yaml"
    threads: plan.threads("export")
    resources:
        **plan.resources("export"),
        **requests.of("export"),
    shell:
        "MEDVQA_LOG={log} python -m workflow_scripts.export"
        " --dataset {wildcards.dataset} --model_version {wildcards.model_version} --mode {wildcards.mode}"
        " 2>&1 | tee {log}"
