"""What the measurements say: medians, the table, and whether the goals are met."""

from statistics import median

from variants import ROWS, VARIANTS

GIB = 1 << 30
MIB = 1 << 20

TITLES = {variant.name: variant.title for variant in VARIANTS}

# How much less CPU a byte than the way by file.
CPU_GOAL = 10.0

# How much more of the whole than what changed a difference may take: the page lists, what says where the copy stands.
DIFFERENCE_ALLOWANCE = 1.05


def medians(runs):
    """The median of every number, each for itself, by variant; the walls' least and greatest besides."""
    result = {}
    for variant in VARIANTS:
        of_variant = [run for run in runs if run["variant"] == variant.name]
        walls = [run["wall_seconds"] for run in of_variant]
        result[variant.name] = {
            "repeats": len(of_variant),
            "wall_seconds": median(walls),
            "wall_seconds_least": min(walls),
            "wall_seconds_greatest": max(walls),
        }
        for name in ("cpu_seconds", "peak_memory_bytes", "servers_cpu_seconds", "others_cpu_seconds"):
            result[variant.name][name] = median(run[name] for run in of_variant)
        for side in ("source", "target"):
            for name in ("requests", "bytes_in", "bytes_out"):
                result[variant.name][f"{side}_{name}"] = median(total(run[side], name) for run in of_variant)
    return result


def total(counters, name):
    return counters["total"][name]


def goals(results):
    """The goals, each with what was measured."""
    of = results["medians"]
    share = results["changed_bytes"] / results["disk_bytes"]

    def less_cpu(variant):
        times = of["azcopy-by-file"]["cpu_seconds"] / of[variant]["cpu_seconds"]
        text = f"{TITLES[variant]}: at least {CPU_GOAL:.0f} times less CPU than AzCopy by way of a file"
        return {"goal": text, "measured": f"{times:.1f} times less", "met": times >= CPU_GOAL}

    def not_slower():
        ratio = of["snapferry-server"]["wall_seconds"] / of["azcopy-by-service"]["wall_seconds"]
        text = f"{TITLES['snapferry-server']}: not slower than AzCopy by service"
        return {"goal": text, "measured": f"{ratio:.2f} of its time", "met": ratio <= 1.0}

    def as_what_changed(variant, measure, noun):
        ratio = of[variant][measure] / of["azcopy-by-service"][measure]
        text = f"{TITLES[variant]}: {share:.2%} changed, so about that part of AzCopy's {noun}"
        return {"goal": text, "measured": f"{ratio:.2%}", "met": ratio <= share * DIFFERENCE_ALLOWANCE}

    return [
        less_cpu("snapferry-stream"),
        less_cpu("snapferry-server"),
        not_slower(),
        as_what_changed("difference-stream", "source_bytes_out", "bytes"),
        as_what_changed("difference-stream", "wall_seconds", "time"),
        as_what_changed("difference-server", "source_bytes_out", "bytes"),
        as_what_changed("difference-server", "wall_seconds", "time"),
    ]


def markdown(results):
    """The table and the goals, for people."""
    disk = results["disk_bytes"] / GIB
    machine = results["machine"]
    lines = [
        f"A disk of {disk:g} GiB full of data, {results['changed_bytes'] / MIB:g} MiB of it changed in a difference; "
        "both regions emulated on the same machine. Medians; CPU and memory are the client's.",
        "",
        "| | client | wall s (least to greatest) | GiB/s | CPU s | CPU s/GiB of the disk "
        "| requests, source + target | MiB from the source | MiB sent to the target | peak MiB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for letter, _, variants in ROWS:
        lines += [row(letter, TITLES[name], results["medians"][name], disk) for name in variants]
    lines += [
        "",
        "AzCopy copies a difference only as the whole disk: its line of c is that of a.",
        "",
    ]
    for goal in results["goals"]:
        lines.append(f"- {'PASS' if goal['met'] else 'FAIL'}: {goal['goal']}: {goal['measured']}")
    walls = sum(run["wall_seconds"] for run in results["runs"])
    others = sum(run["others_cpu_seconds"] for run in results["runs"]) / walls / machine["processors"]
    versions = results["versions"]
    lines += [
        "",
        f"`{results['command']}` on {machine['processors']} x {machine['processor']}, "
        f"{machine['memory_bytes'] / GIB:.0f} GiB, Linux {machine['kernel']}, at {results['taken_at']}; other programs "
        f"took {others:.0%} of the processors meanwhile. {versions['snapferry']}, {versions['azcopy']}, "
        f"{versions['sdk']} on {versions['python']}.",
        "",
    ]
    return "\n".join(lines)


def row(letter, title, of, disk):
    cells = [
        letter,
        title,
        f"{of['wall_seconds']:.2f} ({of['wall_seconds_least']:.2f} to {of['wall_seconds_greatest']:.2f})",
        f"{disk / of['wall_seconds']:.2f}",
        f"{of['cpu_seconds']:.2f}",
        f"{of['cpu_seconds'] / disk:.3f}",
        f"{of['source_requests']:.0f} + {of['target_requests']:.0f}",
        f"{of['source_bytes_out'] / MIB:.0f}",
        f"{of['target_bytes_in'] / MIB:.0f}",
        f"{of['peak_memory_bytes'] / MIB:.0f}",
    ]
    return f"| {' | '.join(cells)} |"
