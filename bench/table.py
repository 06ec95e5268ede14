# SPDX-License-Identifier: Apache-2.0
"""The report as markdown: what was met and what not, then a table for each row."""
import collections

import resume
import stats

STOLEN = 0.05  # cores, from which on it is told

LEGEND = [
    "- ratio: above 1 where Loom is better; in brackets the bounds of its median (order statistics, at least 95 %; with ? too "
    "few runs for any, or a peer that ran once: least and greatest)",
    f"- met: the median reaches the target ({stats.NEARLY}: its lower bound does not); not met: the upper bound does not; "
    f"open: between, too few runs to bound it ({stats.ALL_FEW}, {stats.NONE_FEW}: all of these few), or no peer here",
    "- limit: of what moves in memory (16 MiB and more), memcpy or a loop that copies 40 MB in pages as the system gives them, 4 KiB, "
    "in the same run: the target is a share of this one. Loom's large tensors lie in huge pages, from where more comes, so shares "
    "above 100 % are no error; beside stands the share of the fastest copy in huge pages. Of products: the multiply-adds of all "
    "cores used, the best of a row's runs",
]
SECONDS = {"s": 1, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


def number(value):
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def interval(bounds, form):
    brackets = f"({form(bounds['low'])}..{form(bounds['high'])})"
    return f"{form(bounds['median'])} {brackets}" + ("" if bounds["sure"] else "?")


def measured(case, side):
    """The number; of a time in which bytes were handled, what that is in GB/s as well."""
    text = number(case[side])
    if "bytes" in case:
        text += f" = {number(case['bytes'] / (case[side] * SECONDS[case['unit']]) / 1e9)} GB/s"
    return text


def line_of(cells):
    return "| " + " | ".join(cells) + " |"


def optional(cases):
    """The columns that are there where one of the cases has them."""
    return [key for key in ("huge_share", "predicted") if any(key in case for case in cases)]


def header(more):
    columns = {"": "---", "unit": "---", "Loom": "---:", "peer": "---:", "ratio": "---:", "limit": "---:", "of limit": "---:"}
    columns |= {"of limit in huge pages": "---:"} if "huge_share" in more else {}
    titles, lines = [*columns, "target", ""], [*columns.values(), "---", "---"]
    return [line_of(cells + [end] * ("predicted" in more)) for cells, end in ((titles, "predicted"), (lines, "---"))]


def percent(bounds):
    return interval(bounds, lambda x: f"{x:.0%}") if bounds else ""


def verdict_of(case):
    if case.get("bound_below"):
        return stats.NEARLY
    if "few_runs" in case:
        return f"{case['verdict']}, few runs: {case['few_runs']}"
    verdict = case.get("verdict", "")
    return f"**{verdict}**" if verdict == stats.BEHIND else verdict


def case_line(name, case, more=()):
    theirs = [f"{measured(case, 'theirs')} ({case['variant']})"] if "theirs" in case else []
    theirs += [f"not counted: {number(value)} ({variant})" for variant, value in case.get("beside", {}).items()]
    ratio = interval(case["ratio"], lambda x: f"{x:.2f}" if x < 100 else f"{x:.0f}") if "ratio" in case else ""
    cells = [name, case["unit"], measured(case, "ours"), "; ".join(theirs), ratio,
             number(case["limit"]) if "limit" in case else "", percent(case.get("share"))]
    cells += [percent(case.get("huge_share"))] if "huge_share" in more else []
    cells += [case.get("target", ""), verdict_of(case)]
    return line_of(cells + [case.get("predicted", "")] * ("predicted" in more))


def origin(row, report):
    """Where a row comes from that was not measured as the report's head says."""
    about = report["machine"]
    others = [f"{key}: {value}" for key, value in row.get("machine", {}).items() if value != about.get(key)]
    if row["command"] == report["command"] and row["date"] == about["date"] and row["loom"] == about["loom"] \
            and row["runs"] == report["runs"] and not others:
        return []
    told = f"(measured by `{row['command']}` on {row['date']}, {row['runs']} runs, Loom {row['loom']}"
    return ["; ".join([told, *others]) + ")", ""]


def row_lines(name, row, report):
    lines = ["", f"## {name}", "", row["what"], "", *origin(row, report)]
    if resume.is_disturbed(row):
        lines += [f"Disturbed: other programs kept {row['busy_cores']:g} cores busy.", ""]
    if row.get("stolen_cores", 0) > STOLEN:
        lines += [f"The machine below took {row['stolen_cores']:g} cores from this virtual one.", ""]
    if "cases" not in row:
        return lines + [f"{key}: {row[key].splitlines()[0]}" for key in ("skipped", "failed") if key in row]
    more = optional(row["cases"].values())
    lines += [*header(more), *(case_line(case, values, more) for case, values in row["cases"].items())]
    if row.get("exponents"):
        fitted = ", ".join(f"{who} {value:.2f}" for who, value in row["exponents"].items())
        lines += ["", f"exponent: {fitted}"]
    if row.get("dropped"):
        lines += ["", "not to the end: " + "; ".join(f"{who}: {why}" for who, why in row["dropped"].items())]
    return lines


def rows_by(rows):
    """{what is told of rows: their names}: what came of them, what they were measured of and how quietly."""
    found = collections.defaultdict(list)
    for name, row in rows.items():
        found[f"of Loom {row['loom']}"].append(name)
        for outcome in ("failed", "skipped"):
            if outcome in row:
                found[outcome].append(name)
        if resume.is_disturbed(row):
            found["disturbed by other programs"].append(name)
    return found


def counted(verdicts):
    """How many cases met their target, and on what that stands."""
    said = collections.Counter(values["verdict"] for values in verdicts)
    below = sum(bool(values.get("bound_below")) for values in verdicts)
    few = collections.Counter(values["few_runs"] for values in verdicts if "few_runs" in values)
    return ["| cases | |", "| --- | ---: |", f"| {stats.MET} | {said[stats.MET]} |",
            f"| of these, the lower bound below the target ({stats.NEARLY}) | {below} |",
            f"| {stats.OPEN} | {said[stats.OPEN]} |",
            *(f"| of these, few runs: {which} | {count} |" for which, count in sorted(few.items())),
            f"| {stats.BEHIND} | {said[stats.BEHIND]} |"]


def listed(title, found):
    """{(row, case): values} with what was found and asked for."""
    lines = ["", f"{title}:", "", "| row | |", "| --- | --- |"] if found else []
    for (name, case), values in found.items():
        ratio = f"{values['ratio']['median']:.2f} x {values['variant'] or 'peer'}" if "ratio" in values else ""
        share = f"{values['share']['median']:.0%} of the limit" if "share" in values else ""
        reached = ", ".join(part for part in (ratio, share) if part) or f"{number(values['ours'])} {values['unit']}"
        lines.append(f"| {name}: {case} | {reached}; target {values['target']} |")
    return lines


def summary_lines(rows):
    """How many cases met their target, and which did not; how the rows came about."""
    verdicts = {(name, case): values for name, row in rows.items() for case, values in row.get("cases", {}).items()
                if values.get("verdict")}
    lines = ["", "## Summary", "", *counted(verdicts.values()), "", "| rows | |", "| --- | ---: |"]
    for what, names in rows_by(rows).items():
        told = "" if what.startswith("of Loom") else f": {', '.join(names)}"
        lines.append(f"| {what}{told} | {len(names)} |")

    def those(key, value):
        return {at: values for at, values in verdicts.items() if values.get(key) == value}
    return [*lines, *listed("Not met", those("verdict", stats.BEHIND)),
            *listed("Few runs, and none reaches the target", those("few_runs", stats.NONE_FEW))]


def markdown(report):
    about = report["machine"]
    lines = [f"# Benchmarks, {about['date']}, {about.get('gpu', about['cpu'])}", ""]
    lines += [f"- {key}: {value}" for key, value in about.items() if key != "date" and value]
    lines += [f"- command: `{report['command']}`; {report['runs']} runs of each side by turns, medians", *LEGEND]
    lines += summary_lines(report["rows"])
    if report.get("left"):
        lines += ["", f"Left for a next call: {', '.join(report['left'])}."]
    for name, row in report["rows"].items():
        lines += row_lines(name, row, report)
    return "\n".join(lines) + "\n"
