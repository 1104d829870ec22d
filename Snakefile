# From raw medical VQA sets to a fine-tuned and evaluated GLM-4.1V / 4.5V.
# One target per run: results/eval/{dataset}_{model_version}_{mode}.json. See README.md.
from snakemake.utils import min_version

min_version("9.27")


configfile: "config.yaml"


report: "docs/report.rst"


include: "rules/common.smk"


container: plan.config.cluster.container


pathvars:
    results=str(plan.layout.root),
    fetched=str(plan.layout.fetched),


include: "rules/download.smk"
include: "rules/convert.smk"
include: "rules/validate.smk"
include: "rules/sft.smk"
include: "rules/preferences.smk"
include: "rules/dpo.smk"
include: "rules/ask.smk"
include: "rules/evaluate.smk"
include: "rules/report.smk"
include: "rules/export.smk"


localrules:
    all,


rule all:
    default_target: True
    input:
        plan.evaluations,
        "<results>/report/index.html",


onstart:
    shell("python -m workflow_scripts.tracking")


onsuccess:
    shell("python -m workflow_scripts.status || true")


onerror:
    shell("python -m workflow_scripts.status || true")
