# SPDX-License-Identifier: Apache-2.0
"""The report as markdown: what was met and what not, then a table for each row."""
import stats

HEADER = ["| | unit | Loom | peer | ratio | limit | of limit | target | |",
          "| --- | --- | ---: | ---: | ---: | ---: | ---: | --- | --- |"]


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


def header(predicted):
    """The last column is there where something was predicted."""
    more = (" predicted |", " --- |") if predicted else ("", "")
    return [line + end for line, end in zip(HEADER, more)]


def case_line(name, case, predicted=False):
    theirs = f"{measured(case, 'theirs')} ({case['variant']})" if "theirs" in case else ""
    ratio = interval(case["ratio"], lambda x: f"{x:.2f}" if x < 100 else f"{x:.0f}") if "ratio" in case else ""
    limit = number(case["limit"]) if "limit" in case else ""
    share = interval(case["share"], lambda x: f"{x:.0%}") if "share" in case else ""
    verdict = case.get("verdict", "")
    verdict = f"**{verdict}**" if verdict == stats.BEHIND else verdict
    cells = [name, case["unit"], measured(case, "ours"), theirs, ratio, limit, share, case.get("target", ""), verdict]
    return line_of([*cells, case.get("predicted", "")] if predicted else cells)


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
    if row.get("busy_cores", 0) > 0.2:
        lines += [f"The machine was not idle: other programs kept {row['busy_cores']:g} cores busy.", ""]
    if "cases" not in row:
        return lines + [f"{key}: {row[key].splitlines()[0]}" for key in ("skipped", "failed") if key in row]
    predicted = any("predicted" in case for case in row["cases"].values())
    lines += [*header(predicted), *(case_line(case, values, predicted) for case, values in row["cases"].items())]
    if row.get("exponents"):
        fitted = ", ".join(f"{who} {value:.2f}" for who, value in row["exponents"].items())
        lines += ["", f"exponent: {fitted}"]
    if row.get("dropped"):
        lines += ["", "not to the end: " + "; ".join(f"{who}: {why}" for who, why in row["dropped"].items())]
    return lines


def summary_lines(rows):
    """How many cases met their target, and which did not."""
    verdicts = {(name, case): values for name, row in rows.items() for case, values in row.get("cases", {}).items()
                if values.get("verdict")}
    lines = ["", "## Summary", "", "| | cases |", "| --- | ---: |"]
    for verdict in (stats.MET, stats.OPEN, stats.BEHIND):
        lines.append(f"| {verdict} | {sum(values['verdict'] == verdict for values in verdicts.values())} |")
    for outcome in ("failed", "skipped"):
        if names := [name for name, row in rows.items() if outcome in row]:
            lines.append(f"| rows {outcome}: {', '.join(names)} | {len(names)} |")
    behind = {key: values for key, values in verdicts.items() if values["verdict"] == stats.BEHIND}
    if behind:
        lines += ["", "Not met:", "", "| row | |", "| --- | --- |"]
        for (name, case), values in behind.items():
            ratio = f"{values['ratio']['median']:.2f} x {values['variant'] or 'peer'}" if "ratio" in values else ""
            share = f"{values['share']['median']:.0%} of the limit" if "share" in values else ""
            found = ", ".join(part for part in (ratio, share) if part) or f"{number(values['ours'])} {values['unit']}"
            lines.append(f"| {name}: {case} | {found}; target {values['target']} |")
    return lines


def markdown(report):
    about = report["machine"]
    lines = [f"# Benchmarks, {about['date']}, {about.get('gpu', about['cpu'])}", ""]
    lines += [f"- {key}: {value}" for key, value in about.items() if key != "date" and value]
    lines += [f"- command: `{report['command']}`; {report['runs']} runs of each side by turns, medians",
              "- ratio: above 1 where Loom is better; in brackets the bounds of its median (order statistics, at least "
              "95 %; with ? too few runs for any, so least and greatest)",
              "- met: the median reaches the target; not met: the upper bound does not; open: between, or no peer here"]
    lines += summary_lines(report["rows"])
    if report.get("left"):
        lines += ["", f"Left for a next call: {', '.join(report['left'])}."]
    for name, row in report["rows"].items():
        lines += row_lines(name, row, report)
    return "\n".join(lines) + "\n"
