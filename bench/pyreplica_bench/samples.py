"""What has been measured: a flat list of samples, which the report takes medians of, and of failures."""

import json
import statistics
import traceback
from contextlib import contextmanager


class Samples:
    def __init__(self, about=None):
        self.about = about or {}
        self.values = []
        self.failures = []

    def add(self, section, case, peer, unit, value):
        self.values.append({"section": section, "case": case, "peer": peer, "unit": unit, "value": value})
        print(f"   {peer:12} {case:28} {figure(value)} {unit}", flush=True)

    @contextmanager
    def attempt(self, section, peer):
        """What fails in here is reported, and the run goes on."""
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            self.fail(section, peer, str(error).strip() or repr(error))

    def fail(self, section, peer, why):
        print(f"   {peer:12} FAILED: {why}", flush=True)
        self.failures.append({"section": section, "peer": peer, "why": why})

    def has_failed(self, section, peer):
        return any(failure["section"] == section and failure["peer"] == peer for failure in self.failures)

    def all_of(self, section, case, peer, unit):
        return [sample["value"] for sample in self.values
                if (sample["section"], sample["case"], sample["peer"], sample["unit"]) == (section, case, peer, unit)]

    def median(self, section, case, peer, unit):
        values = self.all_of(section, case, peer, unit)
        return statistics.median(values) if values else None

    def has(self, section):
        return any(entry["section"] == section for entry in self.values + self.failures)

    def save(self, path):
        path.write_text(json.dumps(vars(self), indent=1))

    @classmethod
    def load(cls, paths):
        """Of several files: each section from the last one that has it."""
        whole = cls()
        for path in paths:
            one = json.loads(path.read_text())
            sections = {entry["section"] for entry in one["values"] + one["failures"]}
            quick = one["about"].get("quick") or whole.about.get("quick")
            whole.about = {**whole.about, **one["about"], "quick": quick}
            for mine, theirs in ((whole.values, one["values"]), (whole.failures, one["failures"])):
                mine[:] = [entry for entry in mine if entry["section"] not in sections] + theirs
        return whole


def figure(value):
    """A number to read: three digits that count, and separators."""
    if value is None:
        return "-"
    if value and abs(value) < 100:
        return f"{value:.3g}" if abs(value) < 10 else f"{value:.1f}"
    return f"{value:,.0f}"
