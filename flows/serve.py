"""Serves both flows on a schedule, until it is interrupted.

Needs a Prefect server (`prefect server start`) whose address is in PREFECT_API_URL.
"""

from __future__ import annotations

import argparse

from prefect import serve
from prefect.deployments.runner import RunnerDeployment

from batch_check import batch_check
from stream_health import stream_health


def main() -> None:
    parser = argparse.ArgumentParser(description="Checks files and a worker on a schedule, by Prefect.", allow_abbrev=False)
    parser.add_argument("--reference", required=True, help="a reference (.json), or the data to make one of (.csv or .jsonl)")
    parser.add_argument("--current", required=True, help="the rows to check (.csv or .jsonl)")
    parser.add_argument("--html", help="where to write the HTML report")
    parser.add_argument("--fail-on-drift", action="store_true", help="a run that finds drift is a failed one")
    parser.add_argument("--cron", default="15 3 * * *", help="when to check the files [default: %(default)s]")
    parser.add_argument("--worker", metavar="URL", help="a worker to look at, every five minutes")
    given = parser.parse_args()

    deployments = [
        RunnerDeployment.from_flow(
            batch_check,
            name="scheduled",
            cron=given.cron,
            parameters={
                "reference": given.reference,
                "current": given.current,
                "html": given.html,
                "fail_on_drift": given.fail_on_drift,
            },
        )
    ]
    if given.worker is not None:
        deployments.append(RunnerDeployment.from_flow(stream_health, name="scheduled", cron="*/5 * * * *", parameters={"url": given.worker}))
    serve(*deployments)


if __name__ == "__main__":
    main()
