"""What a campaign of lab/auto has done so far: a line of JSON for each step, on the disk before the
next one begins. Killed at any point, the campaign goes on from its last whole line.
"""

import json
import os


def sync_folder(path):
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Journal:
    def __init__(self, path):
        self.path = path
        self.events = []
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if os.path.exists(path):
            self.read()

    def read(self):
        """A last line without its end was being written when the program was killed: it never was."""
        with open(self.path, "rb") as file:
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        if whole != text:
            with open(self.path, "r+b") as file:
                file.truncate(len(whole))
                os.fsync(file.fileno())
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                event = json.loads(line)
                if not isinstance(event.get("event"), str):
                    raise ValueError("an event has a name")
            except (ValueError, AttributeError) as failure:
                raise ValueError(f"{self.path}:{number}: not a line of a journal: {failure}")
            self.events.append(event)

    def add(self, event, **facts):
        entry = {"event": event, **facts}
        is_new = not os.path.exists(self.path)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            sync_folder(os.path.dirname(self.path))
        self.events.append(entry)
        return entry

    def of(self, *names):
        return [event for event in self.events if event["event"] in names]

    def pending(self):
        """(what was proposed last, the row's number that it began with or None), where it has not ended."""
        proposed, began = None, None
        for event in self.events:
            if event["event"] == "proposed":
                proposed, began = event, None
            elif event["event"] == "began":
                began = event["id"]
            elif event["event"] in ("ended", "failed"):
                proposed, began = None, None
        return proposed, began
