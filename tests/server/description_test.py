"""/openapi.json is what the server does: requests made of it by schemathesis, right ones and wrong ones."""

import os
import subprocess
import sys
import tempfile
import unittest

from support import Server

# A conversation that the schema allows may still be one that the model's template refuses.
LEFT_OUT = "positive_data_acceptance"
EXAMPLES = 8  # for each operation; more of them would take CI too long


class DescriptionTest(unittest.TestCase):
    def test_made_requests_are_answered_as_described(self):
        self.folder = tempfile.TemporaryDirectory(prefix="penstock-description-")
        self.addCleanup(self.folder.cleanup)
        server = Server("--max-tokens", 4, "--parallel", 4, context=256)
        try:
            program = os.path.join(os.path.dirname(sys.executable), "schemathesis")
            run = subprocess.run(
                [program, "run", server.address + "/openapi.json", "--max-examples", str(EXAMPLES), "--seed", "7",
                 "--phases", "coverage,fuzzing", "--exclude-checks", LEFT_OUT, "--workers", "2", "--no-color",
                 "--request-timeout", "60", "--generation-database", "none"],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=400,
                cwd=self.folder.name,  # where it keeps what it found
            )
            self.assertEqual(run.returncode, 0, run.stdout[-8000:])
            self.assertEqual(server.get("/health")[0], 200)
        finally:
            self.assertEqual(server.stop(), 0)


if __name__ == "__main__":
    unittest.main()
