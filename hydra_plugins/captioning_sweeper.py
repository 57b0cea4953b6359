"""Hydra's grid sweeper, made to survive: `python -m captioning.train -m model=lstm,merge seed=1,2`.

It stands here because Hydra takes sweepers from `hydra_plugins` only. Jobs get folders that the
same command finds again; what is finished is not launched, whatever the launcher; a changed config
is refused before anything starts; a job that fails stops no other.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn
from omegaconf import OmegaConf, open_dict

log = logging.getLogger(__name__)


class Job(NamedTuple):
    """A job's folder, and the overrides that make it."""

    folder: Path
    overrides: list[str]


class CaptioningSweeper(BasicSweeper):
    """Runs every combination of the swept values that is not finished yet.

    `params` are a named sweep's (conf/sweep/); `max_batch_size` jobs are launched at a time.
    """

    def sweep(self, arguments: list[str]) -> Sequence[Sequence[JobReturn]]:
        """Run the jobs; ends with exit code 1 and a list of them where some failed."""
        jobs = self.plan(arguments)
        todo = self.unfinished(jobs)
        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        begun = sum((job.folder / "last.ckpt").exists() for job in todo)
        log.info(
            "%s: %d jobs, %d finished before, %d to go on with, %d to start",
            *(folder, len(jobs), len(jobs) - len(todo), begun, len(todo) - begun),
        )
        results = []
        batches = self.split_overrides_to_chunks(
            [job.overrides for job in todo], self.max_batch_size
        )
        for batch in batches if todo else ():
            results.append(self.launcher.launch(batch, sum(map(len, results))))
        report(folder, jobs)
        return results

    def plan(self, arguments: list[str]) -> list[Job]:
        """Return all jobs, each in a folder of the sweep's that what is swept names, and its seed.

        The seed even where there is one, so that more seeds later are more jobs of the same sweep.
        """
        from captioning.sweeps.jobs import job_name

        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        params = [f"{key}={value}" for key, value in self.params.items()]
        overrides = parser.parse_overrides(params + arguments)
        swept = {one.get_key_element() for one in overrides if one.is_sweep_override()}
        swept = list(dict.fromkeys([*self.params, *sorted(swept)]))
        own = []
        if OmegaConf.is_interpolation(self.config, "name"):
            # Nobody named the sweep: what is swept does, so that the same command finds it again.
            keys = [key.lstrip("+") for key in swept if key != "seed"] or swept or ["one"]
            with open_dict(self.config):
                self.config.name = "+".join(sorted(keys))
            own += [] if "name" in swept else [f"name={quoted(self.config.name)}"]
        folder = str(self.config.hydra.sweep.dir)
        own.append(f"hydra.sweep.dir={quoted(folder)}")
        jobs = []
        for combination in (one for some in self.split_arguments(overrides, None) for one in some):
            values = dict(one.split("=", 1) for one in combination)
            values = {"seed": str(self.config.seed)} | values
            name = job_name({key.lstrip("+"): values[key] for key in [*swept, "seed"]})
            subdir = f"hydra.sweep.subdir={quoted(name)}"
            jobs.append(Job(Path(folder) / name, [*combination, *own, subdir]))
        return jobs

    def unfinished(self, jobs: list[Job]) -> list[Job]:
        """Return those to run; ends with exit code 1 where a config has changed meanwhile."""
        from captioning.sweeps.jobs import ChangedError, is_finished

        todo, changed = [], {}
        for job in jobs:
            try:
                if not is_finished(job.folder, self.compose(job)):
                    todo.append(job)
            except ChangedError as error:
                changed.setdefault("\n  ".join(error.changes), []).append(job.folder)
        if changed:
            told = "".join(
                f"\n  {changes}\nin {len(folders)} of {len(jobs)} jobs, such as {folders[0]}"
                for changes, folders in changed.items()
            )
            sys.exit(
                f"error: what is trained in {jobs[0].folder.parent} had another config:{told}\n"
                "type name=NEW for a sweep of its own, or delete those folders to train them again"
            )
        return todo

    def compose(self, job: Job) -> dict[str, Any]:
        """Return a job's config as it will see it, in plain types, unresolved."""
        config = self.hydra_context.config_loader.load_sweep_config(self.config, job.overrides)
        with open_dict(config):
            del config["hydra"]
        return OmegaConf.to_container(config)


def quoted(text: str) -> str:
    """Return text as Hydra's grammar takes it, whatever is in it."""
    return "'" + text.replace("'", r"\'") + "'"


def report(folder: Path, jobs: list[Job]) -> None:
    """Print the table and where everything is; exit with 1 where jobs failed."""
    from captioning.sweeps.jobs import read_status
    from captioning.sweeps.summary import write_summary
    from captioning.web.sweep_page import write_sweep_page

    table = write_summary(folder)
    write_sweep_page(folder)
    print(f"\n{table}\n\npage: {folder / 'summary.html'}")
    found = [(job.folder, read_status(job.folder)) for job in jobs]
    failed = [(at, status) for at, status in found if status.get("status") != "finished"]
    if failed:
        lines = "".join(
            f"\n  {at}: {status.get('error') or status.get('status', 'did not start')}"
            for at, status in failed
        )
        sys.exit(
            f"{len(failed)} of {len(jobs)} jobs failed (traceback.txt says where):{lines}\n"
            "the same command runs these again and no others"
        )
