"""Hydra's grid sweeper, made resumable: `python -m captioning.train -m model=lstm,merge seed=1,2`.

Each job has a folder named by its settings, by which the same command finds it again and launches
what is not finished. Hydra takes sweepers from the package `hydra_plugins` only.
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

from captioning import UserError

log = logging.getLogger(__name__)


class Job(NamedTuple):
    """A job's folder and overrides."""

    folder: Path
    overrides: list[str]


class CaptioningSweeper(BasicSweeper):
    """Runs every combination of the swept values and those of a named sweep (conf/sweep/)."""

    def sweep(self, arguments: list[str]) -> Sequence[Sequence[JobReturn]]:
        """Run the jobs; exit with code 1 and a list of those that failed."""
        jobs = self.plan(arguments)
        unfinished = self.unfinished(jobs)
        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        done = len(jobs) - len(unfinished)
        log.info("%s: %d jobs, %d of them finished before", folder, len(jobs), done)
        results = []
        overrides = [job.overrides for job in unfinished]
        batches = self.split_overrides_to_chunks(overrides, self.max_batch_size)
        for batch in batches if unfinished else ():
            results.append(self.launcher.launch(batch, sum(map(len, results))))
        print_summary(folder, jobs)
        return results

    def plan(self, arguments: list[str]) -> list[Job]:
        """Return all jobs. A folder is named by what is swept, and always by the seed, so that
        more seeds later are more jobs of the same sweep."""
        from captioning.config.hydra_arguments import quote
        from captioning.sweeps.jobs import job_name

        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        params = [f"{key}={value}" for key, value in self.params.items()]
        overrides = parser.parse_overrides(params + arguments)
        swept = {
            override.get_key_element() for override in overrides if override.is_sweep_override()
        }
        swept = list(dict.fromkeys([*self.params, *sorted(swept)]))
        shared = []
        if OmegaConf.is_interpolation(self.config, "name"):
            # Without a name=, a sweep is named by what is swept.
            keys = [key.lstrip("+") for key in swept if key != "seed"] or swept or ["one"]
            with open_dict(self.config):
                self.config.name = "+".join(sorted(keys))
            if "name" not in swept:
                shared.append(f"name={quote(self.config.name)}")
        folder = str(self.config.hydra.sweep.dir)
        shared.append(f"hydra.sweep.dir={quote(folder)}")
        jobs = []
        (combinations,) = self.split_arguments(overrides, None)
        for combination in combinations:
            values = {"seed": str(self.config.seed)}
            values |= dict(override.split("=", 1) for override in combination)
            name = job_name({key.lstrip("+"): values[key] for key in [*swept, "seed"]})
            subdir = f"hydra.sweep.subdir={quote(name)}"
            jobs.append(Job(Path(folder) / name, [*combination, *shared, subdir]))
        return jobs

    def unfinished(self, jobs: list[Job]) -> list[Job]:
        """Return the jobs to run; exit with code 1 where a config has changed meanwhile."""
        from captioning.sweeps.jobs import is_finished

        configs = [self.compose(job) for job in jobs]
        try:
            return [
                job
                for job, config in zip(jobs, configs, strict=True)
                if not is_finished(job.folder, config)
            ]
        except UserError as error:
            sys.exit(f"error: {error}")

    def compose(self, job: Job) -> dict[str, Any]:
        """Return the config that a job will have, in plain types, unresolved."""
        config = self.hydra_context.config_loader.load_sweep_config(self.config, job.overrides)
        with open_dict(config):
            del config["hydra"]
        return OmegaConf.to_container(config)


def print_summary(folder: Path, jobs: list[Job]) -> None:
    """Print the table and where everything is; exit with code 1 where jobs failed."""
    from captioning.sweeps.jobs import read_status
    from captioning.sweeps.summary import write_summary
    from captioning.web.sweep_page import write_sweep_page

    table = write_summary(folder)
    write_sweep_page(folder)
    print(f"\n{table}\n\npage: {folder / 'summary.html'}")
    statuses = {job.folder: read_status(job.folder) for job in jobs}
    failed = [
        f"\n  {folder}: {status.get('error') or status.get('status', 'did not start')}"
        for folder, status in statuses.items()
        if status.get("status") != "finished"
    ]
    if failed:
        sys.exit(
            f"{len(failed)} of {len(jobs)} jobs failed (traceback.txt says where):{''.join(failed)}"
            "\nthe same command runs these again and no others"
        )
