rule evaluate:
    input:
        plan.answers,
        train="<results>/data/{dataset}_{model_version}_{mode}/train.jsonl",
        validation="<results>/data/{dataset}_{model_version}_{mode}/validation.jsonl",
        test="<results>/data/{dataset}_{model_version}_{mode}/test.jsonl",
        checked="<results>/data/{dataset}_{model_version}_{mode}/validation.json",
        sft="<results>/sft/{dataset}_{model_version}_{mode}/metrics.json",
        dpo="<results>/dpo/{dataset}_{model_version}_{mode}/metrics.json",
        terms=plan.terms,
    output:
        evaluation="<results>/eval/{dataset}_{model_version}_{mode}.json",
        predictions="<results>/eval/{dataset}_{model_version}_{mode}/predictions.jsonl",
        scores="<results>/eval/{dataset}_{model_version}_{mode}/predictions.parquet",
        page=report(
            "<results>/eval/{dataset}_{model_version}_{mode}/evaluation.html",
            caption="../docs/captions/evaluation.rst",
            category="Evaluations",
            labels={"run": "{dataset}_{model_version}_{mode}"},
        ),
    log:
        "<results>/logs/evaluate/{dataset}_{model_version}_{mode}.log",
    benchmark:
        "<results>/benchmarks/evaluate/{dataset}_{model_version}_{mode}.tsv"
    conda:
        "../envs/workflow.yaml"
    threads: plan.threads("evaluate")
    resources:
        **plan.resources("evaluate"),
        **requests.of("evaluate"),
    params:
        settings=plan.settings("evaluate"),
    shell:
        "MEDVQA_LOG={log} python -m workflow_scripts.evaluate"
        " --dataset {wildcards.dataset} --model_version {wildcards.model_version} --mode {wildcards.mode}"
        " 2>&1 | tee {log}"
