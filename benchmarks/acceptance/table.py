"""The results of `benchmarks/gpu_acceptance.py` as Markdown."""


def acceptance_table(found):
    """One section per finished part.

    Args:
        found: the results of the parts, by their names.
    """
    sections = [SECTIONS[part](result) for part, result in found.items() if part in SECTIONS]
    took = ", ".join(f"{part} {result['took_s']} s" for part, result in found.items() if "took_s" in result)
    return "\n\n".join([*sections, f"Took: {took}"])


def environment_section(found):
    return ", ".join(f"{name} {value}" for name, value in found.items() if name != "took_s")


def tests_section(found):
    return f"Tests on the device: {found['summary']}"


def speed_section(found):
    kinds = [kind for kind in found if kind not in ("far offsets", "took_s")]
    rows = [
        "| training | s per step, batch in memory | s per iteration with the loader (each round) | of it waiting "
        "| batch MiB | peak GiB | first step s | graphs (breaks) | all losses finite | loss, first and last ten |",
        "| --- " * 10 + "|",
    ]
    for kind in kinds:
        run = found[kind]
        graphs = f"{run['graphs']} ({run['graph_breaks']})" if "graphs" in run else ""
        losses = ", ".join(f"{loss:.3f}" for loss in run["loss"])
        rounds = ", ".join(f"{one['iteration_s']:.4f}" for one in run["rounds"])
        rows.append(
            f"| {kind} | {run['step_s']:.4f} | {run['iteration_s']:.4f} ({rounds}) | "
            f"{100 * run['loader_share']:.0f} % | {run['batch_mib']:.1f} | "
            f"{run.get('peak_gib', float('nan')):.2f} | {run['first_step_s']:.1f} | {graphs} | {run['finite']} | "
            f"{losses} |"
        )
    for suffix in ("", ", compiled"):
        if f"ours{suffix}" in found:
            ours, stock = found[f"ours{suffix}"], found[f"stock{suffix}"]
            ratios = ", ".join(
                f"{name} {ours[name] / stock[name]:.3f}"
                for name in ("iteration_s", "step_s", "peak_gib")
                if name in ours
            )
            rows.append(f"\nOurs / stock{suffix}: {ratios}")
    far = found["far offsets"]
    rows.append(
        f"\nOffsets of 60 mm: {far['dtype']}, finite {far['finite']}, loss {far['loss_mm'][0]:.0f} to "
        f"{far['loss_mm'][1]:.0f} mm, largest predicted {far['largest_predicted_mm']:.0f} mm"
    )
    return "\n".join(rows)


def training_section(found):
    settings = found["settings"]
    n_steps = settings["num_epochs"] * settings["num_iterations_per_epoch"]
    return f"Training of {n_steps} steps, test patients:\n\n{found['table']}"


def prediction_section(found):
    rows = [
        "| prediction | s | with files s | GPU GiB | GPU reserved GiB | host GiB above the start |",
        "| --- " * 6 + "|",
    ]
    rows += [
        f"| {name} | {run['seconds']:.2f} | {cell(run, 'with_files_s')} | {cell(run, 'device_gib')} | "
        f"{cell(run, 'reserved_gib')} | {run['host_gib']:.2f} |"
        for name, run in found.items()
        if isinstance(run, dict) and "seconds" in run
    ]
    for place in ("on device", "on CPU"):
        if f"ours, {place}" in found:
            ours, stock = found[f"ours, {place}"], found[f"stock, {place}"]
            rows.append(f"\nOurs / stock, {place}: {ratios(ours, stock, ours)}")
    if command := found.get("command"):
        times = ", ".join(f"{kind} {s:.1f} s" for kind, s in command.items() if kind != "images")
        rows.append(
            f"\nnnUNetv2_predict, {command['images']} images, start included: {times}, ratio "
            f"{command['ours'] / command['stock']:.3f}"
        )
    if short := found.get("ours, out of memory"):
        rows.append(
            f"\nWith {short['limit_gib']:.2f} of {short['needs_gib']:.2f} GiB: fell back {short['fell_back']}, largest "
            f"difference {short['largest_difference']:.4f} of values up to {short['largest_value']:.1f}"
        )
    return "\n".join(rows)


def ratios(ours, stock, names):
    return ", ".join(f"{name} {ours[name] / stock[name]:.3f}" for name in names if ours.get(name) and stock.get(name))


def cell(run, name):
    return f"{run[name]:.2f}" if name in run else ""


SECTIONS = {
    "environment": environment_section,
    "tests": tests_section,
    "speed": speed_section,
    "training": training_section,
    "prediction": prediction_section,
}
