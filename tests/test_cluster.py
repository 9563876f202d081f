"""Chunks on a Dask cluster: a real scheduler and real workers, lost in every way, and always the same files."""

import json
import logging
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from nuebar.errors import NuebarError
from nuebar.run import WORKER_ENVIRONMENT, Stage, UnfinishedError, run_stage, status
from nuebar.run.cluster import ClusterTable, executor, job_script, load_cluster

distributed = pytest.importorskip("distributed", reason="the cluster tests need nuebar[cluster]")

from nuebar.run import dask_workers, remote  # noqa: E402

EXAMPLES = Path(remote.__file__).parents[1] / "experiments" / "cluster"
HELPERS = '''
import os, signal, time


def count(config, word):
    with open(config["log"], "a") as file:
        file.write(f"{word}\\n")


def write(config, chunk, key, path):
    """Says who does it (the parent is the Dask worker), and takes its time."""
    count(config, f"{chunk} {os.getppid()} {os.getpid()}")
    path.write_bytes(key.to_bytes(8, "little") * 1000)
    end = time.monotonic() + config.get("seconds", 0.0)
    while time.monotonic() < end and not os.path.exists(config["log"] + ".go"):
        time.sleep(0.01)
    return {"chunk": chunk}


def environment(config, chunk, key, path):
    path.write_text("x")
    return {"environment": dict(os.environ), "folder": os.getcwd()}


def die(config, chunk, key, path):
    if chunk == 1:
        with open(config["log"], "a+") as marks:
            marks.seek(0)
            n = len(marks.read())
            marks.write("x")
        if n < config["times"]:
            os.kill(os.getpid(), signal.SIGKILL)
    path.write_bytes(key.to_bytes(8, "little"))


def fail(config, chunk, key, path):
    from nuebar.errors import NuebarError
    if chunk == 1:
        raise NuebarError("expected a source, got none; name one") if config["told"] else KeyError("no such thing")
    path.write_text("x")
'''
SCRIPT = """
import sys
from nuebar.run import Stage, run_stage
from nuebar.run.cluster import executor
folder, log, cluster = sys.argv[1:]
config = {"log": log, "seconds": 30.0}
run_stage(folder, Stage("toys", "chunks_of_test_cluster:write", config, 4, ".bin"), seed=1, jobs=executor(cluster))
"""


@pytest.fixture(scope="module")
def helpers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("helpers")
    (folder / "chunks_of_test_cluster.py").write_text(HELPERS, encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def _importable(helpers, monkeypatch):
    monkeypatch.syspath_prepend(str(helpers))


class Processes:
    """Schedulers and workers, each a process of its own; none outlives the tests."""

    def __init__(self, folder):
        self.folder, self.all = folder, []

    def start(self, *words, **options):
        log = open(self.folder / f"{len(self.all)}.log", "wb")  # noqa: SIM115
        with log:
            process = subprocess.Popen([sys.executable, *words], stdout=log, stderr=log, **options)
        self.all.append(process)
        return process

    def scheduler(self):
        file = self.folder / f"scheduler-{len(self.all)}.json"
        words = ("--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file))
        process = self.start("-m", "distributed.cli.dask_scheduler", *words)
        wait_for(lambda: file.exists() and file.read_text())
        return process, json.loads(file.read_text())["address"]

    def worker(self, address, threads=1):
        words = (address, "--nthreads", str(threads), "--no-nanny", "--no-dashboard")
        return self.start("-m", "distributed.cli.dask_worker", *words, "--local-directory", str(self.folder))

    def end(self):
        for process in self.all:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def module_processes(tmp_path_factory):
    processes = Processes(tmp_path_factory.mktemp("dask"))
    yield processes
    processes.end()


@pytest.fixture
def processes(tmp_path):
    folder = tmp_path / "dask"
    folder.mkdir()
    processes = Processes(folder)
    yield processes
    processes.end()


@pytest.fixture(scope="module")
def address(module_processes):
    """A scheduler with two workers of one thread."""
    _, address = module_processes.scheduler()
    for _ in range(2):
        module_processes.worker(address)
    return address


@pytest.fixture
def cluster(address):
    workers = executor(address)
    yield workers
    workers.close()


def wait_for(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing came"
        time.sleep(0.05)


def stage(function="write", chunks=6, **config):
    return Stage("toys", f"chunks_of_test_cluster:{function}", config, chunks, suffix=".bin")


def contents(folder, name="toys"):
    return {path.name: path.read_bytes() for path in sorted((Path(folder) / name).glob("chunk-*"))}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def log_of(path):
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def alive(pid):
    """Whether a process can still do anything; one whose end nobody has taken note of cannot."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


# --- the same files whoever does the work


def test_files_do_not_depend_on_who_does_the_work(tmp_path, cluster):
    told = {"log": str(tmp_path / "log")}
    run_stage(tmp_path / "here", stage(**told), seed=1)
    run_stage(tmp_path / "local", stage(**told), seed=1, jobs=2)
    result = run_stage(tmp_path / "dask", stage(**told), seed=1, jobs=cluster)
    assert contents(tmp_path / "here") == contents(tmp_path / "local") == contents(tmp_path / "dask")
    assert len(contents(tmp_path / "dask")) == 6
    assert [s["chunk"] for s in result.summaries] == list(range(6))
    # Neither the probe of the folder nor anything half-written is left.
    assert names(tmp_path / "dask" / "toys") == [f"chunk-0000{i}.bin" for i in range(6)] + [
        "ledger.jsonl",
        "stage.json",
    ]
    assert len({line[1] for line in log_of(tmp_path / "log")[12:]}) == 2, "one worker did all"


def test_chunks_have_the_environment_of_every_worker(tmp_path, cluster):
    (told,) = run_stage(tmp_path, stage("environment", 1), seed=1, jobs=cluster).summaries
    assert {name: told["environment"][name] for name in WORKER_ENVIRONMENT} == WORKER_ENVIRONMENT
    assert {"JAX_COMPILATION_CACHE_DIR", "NUMBA_CACHE_DIR"} <= set(told["environment"])
    assert told["folder"] == os.getcwd()


def test_a_spectrum_is_the_same_to_the_last_bit(tmp_path, cluster, juno):
    from nuebar.jobs.ibd import spectrum_stage

    for name, jobs in (("local", 1), ("dask", cluster)):
        run_stage(tmp_path / name, spectrum_stage(juno, None), seed=1, jobs=jobs)
    found = [contents(tmp_path / name, "spectrum") for name in ("local", "dask")]
    assert found[0] == found[1]
    assert len(found[0]) == 1


@pytest.mark.slow
@pytest.mark.parametrize("what", ["stream", "toys"])
def test_simulations_and_fits_are_the_same_to_the_last_bit(tmp_path, cluster, juno, what):
    from nuebar.jobs.fit import FitJob
    from nuebar.jobs.ibd import oscillation_of
    from nuebar.jobs.stream import StreamJob, run_stream
    from nuebar.jobs.toys import PER_CHUNK, ToysJob, run_toys_job

    def work(folder, jobs):
        if what == "stream":
            run_stream(StreamJob(juno, 0.01, oscillation_of(juno), window_s=300.0, cascades=2000), folder, jobs=jobs)
        else:
            run_toys_job(ToysJob(FitJob(asimov=True, exposure_days=59.0), toys=PER_CHUNK + 1), folder, jobs=jobs)

    for name, jobs in (("here", 1), ("local", 2), ("dask", cluster)):
        work(tmp_path / name, jobs)
    found = [contents(tmp_path / name, what) for name in ("here", "local", "dask")]
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == (3 if what == "stream" else 2)


# --- what is lost


def test_a_worker_killed_in_the_middle_costs_its_chunk_only(tmp_path, cluster, address, processes):
    """In the middle: all that it has finished is recorded, and it works at the next."""
    victim = processes.worker(address)
    log, go = tmp_path / "log", tmp_path / "log.go"  # without the latter, chunks do not end
    path = tmp_path / "dask" / "toys" / "ledger.jsonl"

    def recorded():
        return [str(json.loads(line)["chunk"]) for line in path.read_text().splitlines()]

    def hands_are_full():
        # Finished chunks first: what is begun after that look is not missed by the other.
        done = recorded()
        busy = [line[1] for line in log_of(log) if line[0] not in done]
        return len(busy) == len(set(busy)) == 3 and str(victim.pid) in busy

    def kill():
        time.sleep(0.3)  # until those that still saw the file have ended
        wait_for(hands_are_full, seconds=60.0)
        victim.kill()
        victim.wait()
        go.touch()

    def progress(name, done, total):
        if done == 4:
            go.unlink()
            killer.start()

    killer = threading.Thread(target=kill)
    go.touch()
    wait_for(lambda: distributed_workers(address) == 3)
    told = {"log": str(log), "seconds": 90.0}
    run_stage(tmp_path / "dask", stage(chunks=14, **told), seed=1, jobs=cluster, progress=progress)
    killer.join()
    run_stage(tmp_path / "here", stage(chunks=14, log=str(tmp_path / "other")), seed=1)
    assert victim.returncode == -signal.SIGKILL
    assert contents(tmp_path / "dask") == contents(tmp_path / "here")
    begun = [line[0] for line in log_of(log)]
    assert set(begun) == {str(i) for i in range(14)}
    assert len(begun) == 15, "not just the chunk of the worker that was killed was done again"
    assert sorted(recorded(), key=int) == [str(i) for i in range(14)]
    wait_for(lambda: not any(alive(line[2]) for line in log_of(log) if line[1] == str(victim.pid)))


def distributed_workers(address):
    with distributed.Client(address, set_as_default=False) as client:
        return len(client.nthreads())


def test_a_chunk_that_kills_its_process_is_done_again_and_named_in_the_end(tmp_path, cluster):
    log = tmp_path / "marks"
    run_stage(tmp_path / "a", stage("die", 3, log=str(log), times=2), seed=1, jobs=cluster)
    assert log.read_text() == "xxx"
    log.unlink()
    with pytest.raises(NuebarError, match=r"'toys', chunk 1 fails: .*3 workers in a row died .*SIGKILL"):
        run_stage(tmp_path / "b", stage("die", 3, log=str(log), times=9), seed=1, jobs=cluster)
    (now,) = status(tmp_path / "b")
    assert (now.failed, now.done + now.missing, now.errors[0][0]) == (1, 2, 1)


@pytest.mark.parametrize(("told", "kind"), [(True, NuebarError), (False, RuntimeError)])
def test_an_error_in_a_chunk_comes_back_with_its_cause(tmp_path, cluster, told, kind):
    with pytest.raises(kind, match=r"chunk 1 fails: .*(name one|no such thing)") as caught:
        run_stage(tmp_path, stage("fail", 3, told=told), seed=1, jobs=cluster)
    assert "chunks_of_test_cluster.py" in str(caught.value.__cause__)


def test_a_scheduler_that_is_lost_is_one_sentence_and_another_continues(tmp_path, processes, monkeypatch):
    monkeypatch.setattr(dask_workers, "_ANSWER_S", 1.0)
    scheduler, address = processes.scheduler()
    worker = processes.worker(address)
    log = tmp_path / "log"

    def progress(name, done, total):
        if done == 2:
            scheduler.kill()

    workers = executor(address)
    with pytest.raises(NuebarError, match=r"scheduler is lost; finished chunks stay"):
        run_stage(tmp_path, stage(log=str(log), seconds=0.2), seed=1, jobs=workers, progress=progress)
    workers.close()
    (now,) = status(tmp_path)
    assert now.done >= 2
    wait_for(lambda: not any(alive(line[2]) for line in log_of(log)))
    worker.kill()
    with pytest.raises(NuebarError, match=r"expected a Dask scheduler, but it does not answer"):
        run_stage(tmp_path, stage(log=str(log), seconds=0.2), seed=1, jobs=executor(address))
    result = run_stage(tmp_path, stage(log=str(log), seconds=0.2), seed=1)
    assert result.kept == now.done
    assert not [name for name in names(tmp_path / "toys") if ".part" in name]


def test_without_workers_a_run_waits_and_keeps_its_time(tmp_path, processes, caplog):
    caplog.set_level(logging.INFO)
    _, address = processes.scheduler()
    workers = executor(address)
    told = stage(log=str(tmp_path / "log"), seconds=0.3)
    begin = time.monotonic()
    with pytest.raises(UnfinishedError, match=r"0 of 6 chunks are done after the 1 s"):
        run_stage(tmp_path, told, seed=1, jobs=workers, max_seconds=1.0)
    assert 1.0 < time.monotonic() - begin < 5.0
    assert "no workers yet; waiting for one" in caplog.text

    def late(name, done, total):
        processes.all[-1].kill() if done == 1 else None

    processes.worker(address)
    wait_for(lambda: distributed_workers(address) == 1)
    with pytest.raises(UnfinishedError):
        run_stage(tmp_path, told, seed=1, jobs=workers, max_seconds=5.0, progress=late)
    assert status(tmp_path)[0].done in (0, 1)  # none on a very busy machine
    assert status(tmp_path)[0].done == 0 or "1 of 1 workers gone" in caplog.text
    workers.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_chunks_end_with_their_run(tmp_path, helpers, address, processes, number):
    log = tmp_path / "log"
    path = os.pathsep.join([str(helpers), *sys.path])
    words = ("-c", SCRIPT, str(tmp_path / "out"), str(log), address)
    run = processes.start(*words, env={**os.environ, "PYTHONPATH": path})
    wait_for(lambda: len(log_of(log)) == 2)
    run.send_signal(number)
    run.wait(60)
    wait_for(lambda: not any(alive(line[2]) for line in log_of(log)), seconds=30)
    if number == signal.SIGINT:
        assert names(tmp_path / "out" / "toys") == ["ledger.jsonl", "stage.json"]
    else:
        # Nobody was there to tidy up: the next run does.
        Path(f"{log}.go").touch()
        run_stage(tmp_path / "out", stage(chunks=4, log=str(log), seconds=30.0), seed=1)
        assert len(names(tmp_path / "out" / "toys")) == 6


# --- workers that cannot do it


def test_workers_with_another_program_are_refused(tmp_path, cluster, monkeypatch):
    other = {**remote.program(), "jax": "0.1"}
    monkeypatch.setattr(remote, "program", lambda: other)
    with pytest.raises(NuebarError, match=r"worker on .*got another one \(jax: \"0.1\" -> .*same environment"):
        run_stage(tmp_path, stage(log=str(tmp_path / "log")), seed=1, jobs=cluster)
    assert not log_of(tmp_path / "log")


def test_workers_without_nuebar_are_told(tmp_path, cluster, monkeypatch):
    monkeypatch.setattr(remote, "do", remote.sentence)  # a function that cannot take what it gets
    with pytest.raises(NuebarError, match=r"expected nuebar .*start them in the environment of this machine"):
        run_stage(tmp_path, stage(log=str(tmp_path / "log")), seed=1, jobs=cluster)


def test_workers_that_do_not_see_the_folder_are_refused(tmp_path, cluster, monkeypatch):
    cluster.visible_s = 0.1
    monkeypatch.setattr(dask_workers, "atomic_write_text", lambda path, text: path.write_text("something else"))
    with pytest.raises(NuebarError, match=r"expected to see the run folder .*toys.*all workers share"):
        run_stage(tmp_path, stage(log=str(tmp_path / "log")), seed=1, jobs=cluster)


def test_processors_of_several_types_are_told_once(cluster, caplog):
    flow = dask_workers._Flow(cluster, dask_workers.Link(None, "a cluster"), Path("probe"))
    for name in ("EPYC (1)", "EPYC (1)", "Xeon (2)", "Xeon (2)"):
        flow.compare("processor", name)
    assert caplog.text.count("processors of several types (EPYC (1), Xeon (2))") == 1
    flow.compare("code", remote.code())
    assert "code" not in caplog.text
    flow.compare("code", "other")
    assert "nuebar's code was changed" in caplog.text


# --- what --cluster means


def test_jobs_without_a_cluster_are_processes():
    assert executor(None, 3) == 3
    assert executor(None) == len(os.sched_getaffinity(0))


@pytest.mark.parametrize("word", ["host", "slurm", "/a/folder", "scheduler.json", "absent.toml", "host:port"])
def test_what_is_no_cluster_is_one_sentence(word):
    with pytest.raises(NuebarError, match=r"--cluster|absent.toml"):
        executor(word)
    with pytest.raises(NuebarError, match="--jobs: expected 1 or more"):
        executor(None, 0)


SLURM = 'kind = "slurm"\n'
WRONG = {
    'kind = "pbs"': "cluster.kind.*one of slurm, htcondor",
    "": "missing key 'cluster.kind'",
    'kind = "address"': "cluster.address.*if and only if",
    'kind = "local"\naddress = "tcp://a:1"': "cluster.address",
    'kind = "address"\naddress = "a.toml"': "cluster.address.*json",
    SLURM + "workers = 0": "cluster.workers.*1 or more, got 0",
    SLURM + 'workers = "many"': "cluster.workers.*whole number",
    SLURM + 'memory = "lots"': "cluster.memory.*'8 GB'",
    SLURM + 'walltime = "a day"': "cluster.walltime",
    SLURM + "port = 70000": "cluster.port",
    SLURM + 'partition = "long"': "unknown key 'cluster.partition'",
    SLURM + 'directives = "--x"': "cluster.directives.*a list",
    SLURM + 'disk = "3 GB"': "cluster.disk.*only with the kind htcondor",
    'kind = "htcondor"\nwalltime = "1:00:00"': "cluster.walltime.*only with the kind slurm",
    'kind = "local"\nmemory = "3 GB"': "cluster.memory.*slurm or htcondor",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_table_is_refused_with_its_key(tmp_path, text):
    path = tmp_path / "cluster.toml"
    path.write_text(f"[cluster]\n{text}\n")
    with pytest.raises(NuebarError, match=WRONG[text]):
        load_cluster(path)
    path.write_text("[clusters]\n")
    with pytest.raises(NuebarError, match=r"expected one table \[cluster\], got clusters"):
        load_cluster(path)


def test_the_script_of_slurm(tmp_path, monkeypatch):
    pytest.importorskip("dask_jobqueue")
    monkeypatch.chdir(tmp_path)
    table = load_cluster(EXAMPLES / "slurm.toml")
    lines = job_script(table).splitlines()
    assert table.batch_jobs == 10
    for line in (
        "#SBATCH -J nuebar", "#SBATCH -p standard", "#SBATCH -A neutrino", "#SBATCH -n 1", "#SBATCH --mem=19G",
        "#SBATCH --cpus-per-task=10", "#SBATCH -t 08:00:00", "#SBATCH --constraint=milan",
        f"#SBATCH -o {tmp_path}/slurm-logs/nuebar-%J.out", "source ~/nuebar/bin/activate",
    ):  # fmt: skip
        assert line in lines
    assert f"{sys.executable} -m distributed.cli.dask_worker tcp://SCHEDULER:PORT" in lines[-1]
    assert "--nthreads 10" in lines[-1]


def test_the_script_of_htcondor(tmp_path, monkeypatch):
    pytest.importorskip("dask_jobqueue")
    monkeypatch.chdir(tmp_path)
    table = load_cluster(EXAMPLES / "htcondor.toml")
    lines = job_script(table).splitlines()
    assert table.batch_jobs == 100
    for line in (
        "MY.DaskWorkerCores = 1", "MY.DaskWorkerMemory = 2000000000", "MY.DaskWorkerDisk = 1000000000",
        "accounting_group = neutrino", 'requirements = Microarch == "x86_64-v3"', "Executable = /bin/sh", "Queue",
    ):  # fmt: skip
        assert line in lines
    (arguments,) = [line for line in lines if line.startswith("Arguments")]
    assert ". ~/nuebar/bin/activate; " in arguments
    assert "--nthreads 1 " in arguments
    with pytest.raises(NuebarError, match="expected slurm or htcondor to have a script"):
        job_script(ClusterTable("local"))


SBATCH = """#!{python}
import os, subprocess, sys
here = os.path.dirname(os.path.abspath(__file__))
job = subprocess.Popen(["/bin/bash", "-c", open(sys.argv[-1]).read()],
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
with open(here + "/jobs", "a") as file:
    file.write(f"{{job.pid}}\\n")
print(f"Submitted batch job {{job.pid}}")
"""
SCANCEL = """#!{python}
import os, signal, sys
os.killpg(int(sys.argv[1]), signal.SIGKILL)
"""


def test_batch_jobs_are_submitted_and_cancelled(tmp_path, monkeypatch):
    pytest.importorskip("dask_jobqueue")
    here = tmp_path / "bin"
    here.mkdir()
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        (here / name).write_text(text.format(python=sys.executable))
        (here / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", str(here), prepend=os.pathsep)
    monkeypatch.chdir(tmp_path)
    table = tmp_path / "cluster.toml"
    table.write_text('[cluster]\nkind = "slurm"\nworkers = 2\ncores = 2\nhost = "127.0.0.1"\nlogs = "logs"\n')
    log = tmp_path / "log"
    workers = executor(str(table))
    try:
        run_stage(tmp_path / "out", stage(log=str(log)), seed=1, jobs=workers)
    finally:
        workers.close()
        jobs = (here / "jobs").read_text().split()
        for job in jobs:
            subprocess.run(["/bin/sh", "-c", f"kill -9 -{job}"], stderr=subprocess.DEVNULL, check=False)
    assert len(jobs) == 1, "one job with two cores does"
    assert len({line[2] for line in log_of(log)}) == 2
    wait_for(lambda: not any(alive(line[2]) for line in log_of(log)))
    run_stage(tmp_path / "here", stage(log=str(log)), seed=1)
    assert contents(tmp_path / "out") == contents(tmp_path / "here")


def test_one_job_that_is_refused_is_told_and_the_other_does_the_work(tmp_path, monkeypatch, caplog):
    pytest.importorskip("dask_jobqueue")
    here = tmp_path / "bin"
    here.mkdir()
    refusing = (
        "#!/bin/sh\nif mkdir {once} 2>/dev/null; then echo 'error: too many jobs' >&2; exit 1; fi\nexec {real} $@\n"
    )
    scripts = {"sbatch": refusing.format(once=here / "once", real=here / "real"), "real": SBATCH, "scancel": SCANCEL}
    for name, text in scripts.items():
        (here / name).write_text(text if name == "sbatch" else text.format(python=sys.executable))
        (here / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", str(here), prepend=os.pathsep)
    monkeypatch.chdir(tmp_path)
    table = tmp_path / "cluster.toml"
    table.write_text('[cluster]\nkind = "slurm"\nworkers = 2\nhost = "127.0.0.1"\n')
    workers = executor(str(table))
    try:
        with caplog.at_level(logging.WARNING, "nuebar.run.cluster"):
            run_stage(tmp_path / "out", stage(log=str(tmp_path / "log")), seed=1, jobs=workers)
    finally:
        workers.close()
        jobs = (here / "jobs").read_text().split()
        for job in jobs:
            subprocess.run(["/bin/sh", "-c", f"kill -9 -{job}"], stderr=subprocess.DEVNULL, check=False)
    assert len(jobs) == 1
    assert [r.getMessage() for r in caplog.records] == ["sbatch refused a job: error: too many jobs"]
    assert len({line[1] for line in log_of(tmp_path / "log")}) == 1


@pytest.mark.parametrize(("kind", "command"), [("slurm", "sbatch"), ("htcondor", "condor_submit")])
def test_jobs_that_are_refused_are_one_sentence(tmp_path, monkeypatch, kind, command):
    """Dask keeps the refusal in its own thread: the run waited for ever."""
    pytest.importorskip("dask_jobqueue")
    here = tmp_path / "bin"
    here.mkdir()
    (here / command).write_text("#!/bin/sh\necho 'error: Invalid account' >&2\nexit 1\n")
    (here / command).chmod(stat.S_IRWXU)
    table, out = tmp_path / "cluster.toml", tmp_path / "out"
    table.write_text(f'[cluster]\nkind = "{kind}"\nworkers = 3\nhost = "127.0.0.1"\n')
    monkeypatch.setenv("PATH", str(here), prepend=os.pathsep)
    words = ["simulate", "ibd", "--pairs", "1000", "--out", str(out), "--cluster", str(table)]
    done = subprocess.run(
        [sys.executable, "-m", "nuebar.cli", *words], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert f"nuebar: {table}: no workers: {command} refused every job (error: Invalid account)" in last
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("kind", "command"), [("slurm", "sbatch"), ("htcondor", "condor_submit")])
def test_a_machine_that_cannot_submit_jobs_is_one_sentence(tmp_path, monkeypatch, kind, command):
    pytest.importorskip("dask_jobqueue")
    table, out = tmp_path / "cluster.toml", tmp_path / "out"
    table.write_text(f'[cluster]\nkind = "{kind}"\n')
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NuebarError, match=rf"expected {command} on the PATH of this machine, got none; .*login node"):
        executor(str(table))
    words = [sys.executable, "-m", "nuebar.cli", "simulate", "ibd", "--out", str(out), "--cluster", str(table)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    (sentence,) = done.stderr.splitlines()
    assert f"nuebar: --cluster {table}: expected {command} on the PATH" in sentence
    assert done.returncode == 2
    assert not out.exists(), "something was begun"
    # Looking at the script needs no batch system.
    assert "dask_worker" in job_script(load_cluster(table))


LOCAL = """
import logging, sys
from nuebar.run import Stage, run_stage
from nuebar.run.cluster import executor


def complain():
    logging.getLogger("distributed.worker").error("CommClosedError in a heartbeat")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    folder, log, table = sys.argv[1:]
    workers = executor(table)
    run_stage(folder, Stage("toys", "chunks_of_test_cluster:write", {"log": log}, 2, ".bin"), seed=1, jobs=workers)
    workers.link().client.run(complain)
"""


def test_a_local_cluster_that_ends_well_says_nothing_of_lost_connections(tmp_path, helpers):
    (tmp_path / "script.py").write_text(LOCAL)
    table = tmp_path / "local.toml"
    table.write_text('[cluster]\nkind = "local"\nworkers = 2\n')
    path = os.pathsep.join([str(helpers), *sys.path])
    words = [sys.executable, "script.py", str(tmp_path / "out"), str(tmp_path / "log"), str(table)]
    done = subprocess.run(
        words, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    assert done.stderr.splitlines() == [f"{table}: 2 workers"]
    assert len(contents(tmp_path / "out")) == 2


def test_workers_are_told_with_their_threads_if_these_are_more():
    assert dask_workers._crew(1, 1) == "1 worker"
    assert dask_workers._crew(2, 8) == "2 workers with 8 threads"


# --- commands


@pytest.mark.parametrize(
    "words",
    [
        "simulate calibration", "simulate ibd", "simulate singles", "simulate stream", "run",
        "tune validate --density spline --data nowhere",
    ],
)  # fmt: skip
def test_commands_take_a_cluster(tmp_path, words):
    from nuebar.commands import app

    line = [*words.split(), "--out", str(tmp_path / "out"), "--cluster", "somewhere"]
    with pytest.raises(NuebarError, match=r"--cluster: expected the address .* got 'somewhere'"):
        app(line, exit_on_error=False, print_error=False, result_action="return_value")


def test_a_script_is_shown(tmp_path, monkeypatch, capsys):
    pytest.importorskip("dask_jobqueue")
    from nuebar.commands_cluster import cluster_show

    monkeypatch.chdir(tmp_path)
    assert cluster_show(EXAMPLES / "slurm.toml") == 0
    told = capsys.readouterr().out
    assert told.startswith("10 jobs for 100 chunks at the same time; each:")
    assert "#SBATCH -p standard" in told


def test_without_dask_one_sentence_helps(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(NuebarError, match=r"pip install 'nuebar\[cluster\]'"):
        executor("tcp://host:8786")
    assert executor(None, 2) == 2


def test_status_counts_stages_wherever_they_are(tmp_path):
    from nuebar.chain.summary import status_lines

    told = {"log": str(tmp_path / "log")}
    run_stage(tmp_path / "out" / "study", stage(**told), seed=1)
    run_stage(tmp_path / "out", stage(chunks=3, **told), seed=1)
    with pytest.raises(NuebarError):
        run_stage(tmp_path / "out" / "study" / "deep", stage("fail", 3, told=True), seed=1)
    (tmp_path / "out" / "toys" / "chunk-00001.bin").unlink()
    assert status_lines(tmp_path / "out") == [
        "toys: 2 of 3 chunks done, 1 missing, 0 failed",
        "study: toys: 6 of 6 chunks done, 0 missing, 0 failed",
        "study/deep: toys: 1 of 3 chunks done, 1 missing, 1 failed",
        "  chunk 1: expected a source, got none; name one",
        "together: 9 of 12 chunks done, 2 missing, 1 failed",
    ]


def page_module():
    import importlib.util

    root = Path(__file__).parents[1]
    sys.path.insert(0, str(root / "benchmarks"))
    try:
        spec = importlib.util.spec_from_file_location("cluster_page", root / "benchmarks" / "cluster_page.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module


NUMBERS = {
    "empty": {"chunks": 100, "rows": [{"workers": "2 Dask workers", "ms_per_chunk": 5.0, "ms_of_dask_alone": 2.0}]},
    "stream": {
        "days": 10.0, "chunks": 60, "events": 50_000_000, "bytes": 60 * 10**8, "same_bits": True, "request_bytes": 9000,
        "rows": [{"workers": "1 Dask worker", "seconds": 120.0}],
    },
    "toys": {
        "toys": [1000, 4000], "per_chunk": 1000, "bytes": 4 * 10**6, "same_bits": True, "request_bytes": 900,
        "rows": [{"workers": "1 Dask worker", "seconds_1000": 11.0, "seconds_4000": 14.0}],
    },
}  # fmt: skip


def test_the_plan_follows_from_the_figures():
    found = page_module().plan(NUMBERS, nodes=10, cores=20, disk_GB_per_s=1.0)
    # 13149 windows of 2 s on 200 cores: 66 rounds; 0.1 GB each through 1 GB/s takes longer.
    assert found["stream"]["chunks"] == 13149
    assert found["stream"]["work_s"] == pytest.approx(66 * 2.0)
    assert found["stream"]["disk_s"] == found["stream"]["seconds"] == pytest.approx(1314.9)
    # A toy takes 1 ms after 10 s of start; 1000 chunks on 200 cores.
    assert found["toys"]["start_s"] == pytest.approx(10.0)
    assert found["toys"]["seconds"] == pytest.approx(10.0 + max(5 * 1.0, 1000 * 0.005, 1.0))


def test_the_page_follows_the_record():
    module = page_module()
    record = json.loads(module.RECORD.read_text(encoding="utf-8")) if module.RECORD.is_file() else None
    text = module.PAGE.read_text(encoding="utf-8")
    assert module.page(text, record) == text, "run python benchmarks/cluster_page.py"
