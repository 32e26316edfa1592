"""tools/bundle.sh: what it packs runs where nothing is installed, in any directory."""
import pathlib
import subprocess
import sys

from program import MICA, SANITIZED, SOURCE, ProgramTest, main

BUILD = pathlib.Path(MICA).resolve().parent.parent
GLIBC = ("linux-vdso", "ld-linux", "libc.so", "libm.so", "libdl.so", "librt.so", "libpthread.so", "libresolv.so")


class BundleTest(ProgramTest):
    def bundle(self, *arguments):
        return subprocess.run([SOURCE / "tools" / "bundle.sh", *arguments], capture_output=True, text=True, timeout=300)

    def test_runs_anywhere(self):
        done = self.bundle(BUILD, self.folder / "mica-test.tar")
        self.assertEqual(done.returncode, 0, done.stderr)
        elsewhere = self.folder / "else where"
        elsewhere.mkdir()
        subprocess.run(["tar", "-xf", self.folder / "mica-test.tar", "-C", elsewhere], check=True)
        root = elsewhere / "mica-test"

        def alone(*command):
            return subprocess.run(["env", "-i", *command], capture_output=True, text=True, check=True, cwd="/").stdout
        version = subprocess.run([MICA, "--version"], capture_output=True, text=True, check=True).stdout
        self.assertEqual(alone(root / "bin" / "mica", "--version"), version)
        for line in alone("ldd", root / "bin" / "mica").splitlines():
            library = line.split()[0].rpartition("/")[2]
            if not library.startswith(GLIBC):
                self.assertIn(f"=> {root}/", line, "taken from the system")
        self.assertIn(version.split()[-1].strip("()"), (root / "README").read_text())
        self.assertTrue((root / "LICENSE").exists())
        self.assertEqual((BUILD / "bin" / "libmica_cuda.so").exists(), (root / "lib" / "libmica_cuda.so").exists())

    def test_what_is_not_built(self):
        done = self.bundle(BUILD, self.folder / "none.tar", "--programs", "mica no_such_program")
        self.assertEqual(done.returncode, 1)
        self.assertIn("no_such_program is not there; build it first", done.stderr)
        self.assertFalse((self.folder / "none.tar").exists())


if SANITIZED:
    print("SKIP: a build with sanitizers is not packed")
    sys.exit(77)
main()
