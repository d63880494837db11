"""Samples to markdown: medians, spread, and by how much the first side is better than each other."""

import statistics

# How a metric is written, and whether more of it is better.
METRICS = {
    "MB/s": ("{:,.0f}", True),
    "messages/s": ("{:,.0f}", True),
    "messages/s read": ("{:,.0f}", True),
    "requests/s": ("{:,.0f}", True),
    "broker CPU s/GB": ("{:.2f}", False),
    "broker CPU s/million": ("{:.3f}", False),
    "broker CPU us/request": ("{:.1f}", False),
    "broker CPU % of a core": ("{:.1f}", False),
    "p50 us": ("{:,.0f}", False),
    "p99 us": ("{:,.0f}", False),
    "p99.9 us": ("{:,.0f}", False),
    "p99.99 us": ("{:,.0f}", False),
    "RSS MB": ("{:,.0f}", False),
    "RSS anonymous MB": ("{:,.0f}", False),
    "heartbeat p50 us": ("{:,.0f}", False),
    "heartbeat p99 us": ("{:,.0f}", False),
    "heartbeat p99.9 us": ("{:,.0f}", False),
    "commit p99 us": ("{:,.0f}", False),
    "settled after ms": ("{:,.0f}", False),
    "kB a member": ("{:.1f}", False),
    "all offsets back after ms": ("{:,.0f}", False),
    "ready after ms": ("{:,.0f}", False),
    "ms": ("{:,.0f}", False),
}
BARE = "bare loop"


class Samples:
    """Numbers by work, metric and side, in the order of the first appearance."""

    def __init__(self, sides):
        self.sides = sides
        self.works = {}
        self.growth = {}
        self.reports = []
        self.failures = []

    def add(self, work, side, metrics):
        for metric, value in metrics.items():
            if value is not None:
                self.works.setdefault(work, {}).setdefault(metric, {}).setdefault(side, []).append(value)

    def add_growth(self, work, metric, side, points):
        """Points are (how far it has grown, value)."""
        table = self.growth.setdefault(work, {"metric": metric, "sides": {}})
        for at, value in points:
            if value is not None:
                table["sides"].setdefault(side, {}).setdefault(at, []).append(value)

    def add_report(self, work, side, report):
        """A whole report of loadgen's, for its histograms."""
        self.reports.append({"work": work, "side": side, "report": report})

    def fail(self, work, side, reason):
        self.failures.append((work, side, reason))

    def to_json(self):
        growth = {
            work: {"metric": table["metric"],
                   "sides": {side: sorted(points.items()) for side, points in table["sides"].items()}}
            for work, table in self.growth.items()}
        return {"sides": self.sides + [BARE], "order": list(self.works), "works": self.works, "growth": growth,
                "reports": self.reports, "failures": self.failures}

    def to_markdown(self):
        lines = []
        for work, metrics in self.works.items():
            rows = [(metric, metric, by_side) for metric, by_side in metrics.items()]
            lines += ["", f"### {work}", "", *self._table("", rows)]
        for work, table in self.growth.items():
            stops = sorted({at for points in table["sides"].values() for at in points})
            rows = [(f"{at:,}", table["metric"], {side: points.get(at, []) for side, points in table["sides"].items()})
                    for at in stops]
            lines += ["", f"### {work}", "", *self._table(table["metric"], rows)]
        lines += self._above_bare()
        if self.failures:
            lines += ["", "### What did not run", ""]
            lines += [f"- {work}, {side}: {reason}" for work, side, reason in self.failures]
        return "\n".join(lines) + "\n"

    def _table(self, corner, rows):
        """Rows are (what, metric, samples by side)."""
        sides = [side for side in self.sides + [BARE] if any(by_side.get(side) for _, _, by_side in rows)]
        first, others = sides[:1], sides[1:]
        heads = first + [head for side in others for head in (side, "ratio")]
        lines = [f"| {corner} | " + " | ".join(heads) + " |", "| --- |" + " ---: |" * len(heads)]
        for what, metric, by_side in rows:
            cells = [self._cell(metric, by_side.get(side, [])) for side in first]
            for side in others:
                cells += [self._cell(metric, by_side.get(side, [])),
                          self._ratio(metric, by_side.get(sides[0], []), by_side.get(side, []))]
            lines.append(f"| {what} | " + " | ".join(cells) + " |")
        return lines

    def _cell(self, metric, values):
        if not values:
            return "-"
        form = METRICS[metric][0].format
        middle = form(statistics.median(values))
        return f"{middle} ({form(min(values))} - {form(max(values))}, n={len(values)})"

    def _ratio(self, metric, first, other):
        if not first or not other:
            return "-"
        first, other = statistics.median(first), statistics.median(other)
        if min(first, other) <= 0:
            return "-"
        return f"{first / other if METRICS[metric][1] else other / first:.2f}x"

    def _above_bare(self):
        """Each side's CPU per GB of producing as a multiple of the bare loop's."""
        metric = "broker CPU s/GB"
        bare = {work: metrics[metric][BARE] for work, metrics in self.works.items() if BARE in metrics.get(metric, {})}
        rows = [(work, metrics[metric]) for work, metrics in self.works.items()
                if metric in metrics and work not in bare and work.startswith("produce")]
        if not bare or not rows:
            return []
        best = min(statistics.median(values) for values in bare.values())
        if best <= 0:
            return []
        lines = ["", f"### CPU per GB as a multiple of the bare loop's ({best:.2f} s/GB, the better of its ways)", "",
                 "| | " + " | ".join(self.sides) + " |", "| --- |" + " ---: |" * len(self.sides)]
        for work, by_side in rows:
            cells = [f"{statistics.median(by_side[side]) / best:.1f}x" if by_side.get(side) else "-"
                     for side in self.sides]
            lines.append(f"| {work} | " + " | ".join(cells) + " |")
        return lines
