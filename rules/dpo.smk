rule dpo:
    input:
        preferences="<results>/preferences/{dataset}_{model_version}_{mode}.jsonl",
        sft="<results>/sft/{dataset}_{model_version}_{mode}/metrics.json",
        validation="<results>/preferences/{dataset}_{model_version}_{mode}.validation.jsonl",
    output:
        "<results>/dpo/{dataset}_{model_version}_{mode}/metrics.json",
    log:
        "<results>/logs/dpo/{dataset}_{model_version}_{mode}.log",
    benchmark:
        "<results>/benchmarks/dpo/{dataset}_{model_version}_{mode}.tsv"
    conda:
        "../envs/workflow.yaml"
    threads: plan.threads("dpo")
    resources:
        **plan.resources("dpo"),
        **requests.of("dpo"),
    params:
        settings=plan.settings("dpo"),
    shell:
        "MEDVQA_LOG={log} python -m workflow_scripts.dpo"
        " --dataset {wildcards.dataset} --model_version {wildcards.model_version} --mode {wildcards.mode}"
        " 2>&1 | tee {log}"
