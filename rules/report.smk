rule report:
    input:
        plan.evaluations,
    output:
        report(
            "<results>/report/index.html",
            caption="../docs/captions/report.rst",
            category="Results",
        ),
    log:
        "<results>/logs/report.log",
    benchmark:
        "<results>/benchmarks/report.tsv"
    conda:
        "../envs/workflow.yaml"
    threads: plan.threads("report")
    resources:
        **plan.resources("report"),
        **requests.of("report"),
    shell:
        "MEDVQA_LOG={log} python -m workflow_scripts.report 2>&1 | tee {log}"
