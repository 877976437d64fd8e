"""Let another virtual environment import the libraries that are installed beside this Python.

Editable packages stay out: only the folder is added, and the .pth files in it are not read.
"""

import subprocess
import sys
import sysconfig
from pathlib import Path

where = "import sysconfig; print(sysconfig.get_path('purelib'))"
python = Path(sys.argv[1]) / "bin" / "python"
site = subprocess.run([python, "-c", where], capture_output=True, text=True, check=True).stdout.strip()
Path(site, "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
