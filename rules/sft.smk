rule sft:
    input:
        train="<results>/data/{dataset}_{model_version}_{mode}/train.jsonl",
        # It must have passed; that it was looked at again changes nothing.
        validated=ancient("<results>/data/{dataset}_{model_version}_{mode}/validation.json"),
        model="<fetched>/models/{model_version}_{mode}/manifest.json",
    output:
        "<results>/sft/{dataset}_{model_version}_{mode}/metrics.json",
    log:
        "<results>/logs/sft/{dataset}_{model_version}_{mode}.log",
    benchmark:
        "<results>/benchmarks/sft/{dataset}_{model_version}_{mode}.tsv"
    conda:
        "../envs/workflow.yaml"
    threads: plan.threads("sft")
    resources:
        **plan.resources("sft"),
        **requests.of("sft"),
    params:
        settings=plan.settings("sft"),
    shell:
        "MEDVQA_LOG={log} python -m workflow_scripts.sft"
        " --dataset {wildcards.dataset} --model_version {wildcards.model_version} --mode {wildcards.mode}"
        " 2>&1 | tee {log}"
