"""A Slurm of one node in a folder, from Debian's packages: daemons that end with the test."""

import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import contextmanager

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol")
CONFIGURATION = """
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmdSpoolDir={folder}/spool
StateSaveLocation={folder}/state
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
ReturnToService=2
KillWait=2
MpiDefault=none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=2000 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def unavailable():
    """Say why no Slurm can be started here; nothing if it can."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"needs slurm-wlm and munge: {', '.join(missing)} not found"
    return "" if os.geteuid() == 0 else "needs root to start Slurm"


def free_ports(number):
    """Ports that nobody listens to."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [s.getsockname()[1] for s in sockets]
    for one in sockets:
        one.close()
    return ports


@contextmanager
def single_node(folder, cpus=2):
    """Start the daemons; yield the environment in which its commands work."""
    for name in ("spool", "state"):
        (folder / name).mkdir()
    host = socket.gethostname().partition(".")[0]
    text = CONFIGURATION.format(host=host, folder=folder, ports=free_ports(2), cpus=cpus)
    (folder / "slurm.conf").write_text(text)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}
    here = {
        name: f"--{name}={folder / 'munge'}.{end}"
        for name, end in (
            ("socket", "socket"),
            ("pid-file", "pid"),
            ("log-file", "log"),
            ("seed-file", "seed"),
        )
    }
    commands = (
        ["munged", "--foreground", "--force", f"--key-file={key}", *here.values()],
        ["slurmctld", "-D"],
        ["slurmd", "-D", "-N", host],
    )
    running = []
    try:
        for command in commands:
            with open(folder / f"{command[0]}.out", "w") as out:
                running.append(subprocess.Popen(command, env=environment, stdout=out, stderr=out))
            time.sleep(0.5)
        wait_until_idle(environment)
        yield environment
    finally:
        for process in reversed(running):
            process.send_signal(signal.SIGTERM)
        for process in running:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def wait_until_idle(environment, seconds=30):
    """Wait until the node takes jobs."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        shown = subprocess.run(
            ["sinfo", "-h", "-o", "%T"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if shown.stdout.strip() == "idle":
            return
        time.sleep(0.3)
    raise RuntimeError(f"the node is not idle: {shown.stdout}{shown.stderr}")
