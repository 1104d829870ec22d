rule download:
    input:
        plan.local_files,
    output:
        "<fetched>/raw/{source}/manifest.json",
    log:
        "<results>/logs/download/{source}.log",
    benchmark:
        "<results>/benchmarks/download/{source}.tsv"
    localrule: plan.config.cluster.download_here
    conda:
        "../envs/workflow.yaml"
    threads: plan.threads("download")
    resources:
        **plan.resources("download"),
        **requests.of("download"),
    params:
        origin=plan.source,
    shell:
        "MEDVQA_LOG={log} python -m workflow_scripts.download"
        " --dataset {wildcards.source} 2>&1 | tee {log}"


rule download_model:
    output:
        "<fetched>/models/{model_version}_{mode}/manifest.json",
    log:
        "<results>/logs/download/{model_version}_{mode}.log",
    benchmark:
        "<results>/benchmarks/download/{model_version}_{mode}.tsv"
    localrule: plan.config.cluster.download_here
    conda:
        "../envs/workflow.yaml"
    threads: plan.threads("download_model")
    resources:
        **plan.resources("download_model"),
        **requests.of("download_model"),
    params:
        origin=plan.checkpoint,
    shell:
        "MEDVQA_LOG={log} python -m workflow_scripts.download"
        " --model_version {wildcards.model_version} --mode {wildcards.mode} 2>&1 | tee {log}"
