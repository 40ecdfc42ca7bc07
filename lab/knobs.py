"""The knobs of penstock (`penstock config knobs`), and keeping one in this machine's profile."""

import json
import os

import commands


class Unknown(Exception):
    """The program or the profile does not say what is needed."""


def declared(command):
    """-> [{"name", "value", "built_in", "low", "high", "term", "help"}], values as on this machine"""
    code, text = commands.run_and_read(command)
    try:
        knobs = json.loads(text.splitlines()[-1])["knobs"] if code == 0 else None
        for knob in knobs:
            low, value, high = (int(knob[key]) for key in ("low", "value", "high"))
            if not low <= value <= high:
                raise ValueError(knob["name"])
    except (ValueError, KeyError, TypeError, IndexError):
        raise Unknown(f"`{' '.join(command)}` does not tell the knobs: {text[-200:].strip()}")
    return knobs


def keep(path, values):
    """In the profile, all of it or nothing; the same again changes nothing."""
    try:
        with open(path, encoding="utf-8") as file:
            profile = json.load(file)
        kept = {**profile.get("knobs", {}), **values}
    except (OSError, ValueError, TypeError, AttributeError) as failure:
        raise Unknown(f"{path} is no profile of a machine ({failure}); run `penstock doctor MODEL`")
    if profile.get("knobs") == kept:
        return
    profile["knobs"] = kept
    partial = path + ".partial"
    with open(partial, "w", encoding="utf-8") as file:
        json.dump(profile, file, indent=2, ensure_ascii=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
