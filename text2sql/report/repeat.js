// How to repeat the run: everything that its stamp says about where it came from.

function repeatSection() {
  const run = PAGE.run;
  const commit = run.commit && [quoted("code", run.commit), run.dirty ? ", with changes that are not committed" : ""];
  const versions = Object.entries(run.versions ?? {})
    .map(([name, version]) => `${name} ${version}`)
    .join(", ");
  const data = ["name", "path", "sha256"]
    .map((field) => lookup(run.data, field))
    .filter(Boolean)
    .join(", ");
  const list = facts([
    ["Command", run.command && quoted("code", run.command, { class: "command" })],
    ["Commit", commit],
    ["Started", run.started && quoted("span", run.started)],
    ["Finished", run.finished && quoted("span", run.finished)],
    ["Data", data && quoted("span", data)],
    ["Adapter", run.adapter && quoted("code", run.adapter)],
    ["Predictions", run.predictions && quoted("code", run.predictions)],
    ["Continues", run.parent && quoted("code", run.parent)],
    ["LoRA-B norm at the start", isNumber(run.parent_lora_b_norm) && run.parent_lora_b_norm.toFixed(3)],
    ["Seed", run.seed != null && quoted("span", run.seed)],
    ["Precision", run.precision && quoted("span", run.precision)],
    ["GPU", run.gpu && quoted("span", run.gpu)],
    ["Platform", run.platform && quoted("span", run.platform)],
    ["Versions", versions && quoted("span", versions)],
    ["Tokenizer sha256", run.tokenizer_sha256 && quoted("code", run.tokenizer_sha256)],
    ["Prompt sha256", run.prompt_sha256 && quoted("code", run.prompt_sha256)],
  ]);
  const settings = Object.entries(run.fingerprint ?? {}).map(([name, value]) => [
    quoted("code", name),
    quoted("span", value),
  ]);
  const shared = settings.length
    ? [element("h3", null, "Settings that a later phase must share"), facts(settings)]
    : null;
  return section("repeat", "How to repeat it", list, shared);
}
