"""Samples to markdown: medians, spread, and by how much the first side is better."""

import statistics

# How a metric is written, and whether more of it is better.
METRICS = {
    "MB/s": ("{:,.0f}", True),
    "messages/s": ("{:,.0f}", True),
    "broker CPU s/GB": ("{:.2f}", False),
    "broker CPU s/million": ("{:.3f}", False),
    "broker CPU us/request": ("{:.1f}", False),
    "broker CPU % of a core": ("{:.1f}", False),
    "p50 us": ("{:,.0f}", False),
    "p99 us": ("{:,.0f}", False),
    "p99.9 us": ("{:,.0f}", False),
    "RSS MB": ("{:,.0f}", False),
    "ready after ms": ("{:,.0f}", False),
}


class Samples:
    """Numbers by work, metric and side, in the order of the first appearance."""

    def __init__(self, sides):
        self.sides = sides
        self.works = {}
        self.failures = []

    def add(self, work, side, metrics):
        for metric, value in metrics.items():
            if value is not None:
                self.works.setdefault(work, {}).setdefault(metric, {}).setdefault(side, []).append(value)

    def fail(self, work, side, reason):
        self.failures.append((work, side, reason))

    def to_json(self):
        return {"sides": self.sides, "works": self.works, "failures": self.failures}

    def to_markdown(self):
        lines = []
        for work, metrics in self.works.items():
            lines += ["", f"### {work}", "", "| | " + " | ".join(self.sides) + " | ratio |",
                      "| --- |" + " ---: |" * (len(self.sides) + 1)]
            for metric, by_side in metrics.items():
                cells = [self._cell(metric, by_side.get(side, [])) for side in self.sides]
                lines.append(f"| {metric} | " + " | ".join(cells) + f" | {self._ratio(metric, by_side)} |")
        if self.failures:
            lines += ["", "### What did not run", ""]
            lines += [f"- {work}, {side}: {reason}" for work, side, reason in self.failures]
        return "\n".join(lines) + "\n"

    def _cell(self, metric, values):
        if not values:
            return "-"
        form = METRICS[metric][0].format
        middle = form(statistics.median(values))
        return f"{middle} ({form(min(values))} - {form(max(values))}, n={len(values)})"

    def _ratio(self, metric, by_side):
        medians = [statistics.median(by_side[side]) for side in self.sides if by_side.get(side)]
        if len(medians) != 2 or min(medians) <= 0:
            return "-"
        first, second = medians
        return f"{first / second if METRICS[metric][1] else second / first:.2f}x"
