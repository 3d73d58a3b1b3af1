"""What the measurements say: medians, the table, and whether the goals are met."""

from statistics import median

from variants import ROWS, VARIANTS

GIB = 1 << 30
MIB = 1 << 20

TITLES = {variant.name: variant.title for variant in VARIANTS}

# Ten times less than by way of a file; both move the same bytes.
CPU_GOAL = 0.1

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
                result[variant.name][f"{side}_{name}"] = median(run[side]["total"][name] for run in of_variant)
    return result


def goals(results):
    """The goals, each with what was measured: a number of one variant as a part of the same number of another."""
    changed = results["changed_bytes"] / results["disk_bytes"] * DIFFERENCE_ALLOWANCE
    # Variant, held against, by which number, its name for people, the greatest part that will do.
    wanted = [
        ("snapferry-stream", "azcopy-by-file", "cpu_seconds", "CPU", CPU_GOAL),
        ("snapferry-server", "azcopy-by-file", "cpu_seconds", "CPU", CPU_GOAL),
        ("snapferry-server", "azcopy-by-service", "wall_seconds", "time", 1.0),
        ("difference-stream", "azcopy-by-service", "source_bytes_out", "bytes", changed),
        ("difference-stream", "azcopy-by-service", "wall_seconds", "time", changed),
        ("difference-exact", "azcopy-by-service", "source_bytes_out", "bytes", changed),
        ("difference-exact", "azcopy-by-service", "wall_seconds", "time", changed),
        ("difference-server", "azcopy-by-service", "source_bytes_out", "bytes", changed),
        ("difference-server", "azcopy-by-service", "wall_seconds", "time", changed),
    ]
    found = []
    for variant, other, number, noun, most in wanted:
        goal = f"`{TITLES[variant]}` takes at most {most:.1%} of the {noun} of {TITLES[other]}"
        part = results["medians"][variant][number] / results["medians"][other][number]
        found.append({"goal": goal, "part": part, "met": part <= most})
    return found


def markdown(results):
    """The table and the goals, for people."""
    disk = results["disk_bytes"] / GIB
    machine = results["machine"]
    lines = [
        f"A disk of {disk:g} GiB full of data, {results['changed_bytes'] / MIB:g} MiB of it changed in a difference; "
        "both regions emulated on the same machine. Medians; CPU and memory are the client's.",
        "",
        "| | client | wall s (least to greatest) | GiB of the disk a second | CPU s | CPU s/GiB of the disk "
        "| requests, source + target | MiB from the source | MiB sent to the target | peak MiB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for letter, what, variants in ROWS:
        lines += [row(f"{letter}: {what}", TITLES[name], results["medians"][name], disk) for name in variants]
    lines += [
        "",
        "AzCopy copies a difference only as the whole disk: its line of c is that of a. Peaks of less than "
        f"{results['peak_memory_floor_bytes'] / MIB:.0f} MiB cannot be told.",
        "",
    ]
    for goal in results["goals"]:
        lines.append(f"- {'PASS' if goal['met'] else 'FAIL'}: {goal['goal']}: {goal['part']:.1%}")
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


def row(what, title, of, disk):
    cells = [
        what,
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
