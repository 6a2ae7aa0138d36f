"""Makes the dashboards with the Grafana Foundation SDK, whose types say what Grafana reads: `make dashboards`. A test wants the committed JSON new.

Queries read recorded series where there are any (deploy/prometheus/recording.yml). What is rightly absent in a healthy system shows as 0.
"""

import json
from pathlib import Path

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.cog import builder as cog
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as c
from grafana_foundation_sdk.models import dashboard as d
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

# Okabe and Ito's colours, which the colour-blind tell apart.
BLUE, ORANGE, VERMILLION = "#0072B2", "#E69F00", "#D55E00"
STATUS = [
    d.ValueMap(
        options={
            "0": d.ValueMappingResult(text="no drift", color=BLUE, index=0),
            "1": d.ValueMappingResult(text="possible drift", color=ORANGE, index=1),
            "2": d.ValueMappingResult(text="drift", color=VERMILLION, index=2),
        }
    )
]
SOURCE = d.DataSourceRef(type_val="prometheus", uid="${datasource}")
FOLDER = Path(__file__).parent / "dashboards"
WIDTH = 24

Panel = stat.Panel | statetimeline.Panel | table.Panel | timeseries.Panel


def steps(possible: float | None = None, drift: float | None = None) -> dashboard.ThresholdsConfig:
    """Blue, orange from the first bound, vermillion from the second."""
    bounds = [d.Threshold(value=value, color=colour) for value, colour in ((possible, ORANGE), (drift, VERMILLION)) if value is not None]
    return dashboard.ThresholdsConfig().mode(d.ThresholdsMode.ABSOLUTE).steps([d.Threshold(value=None, color=BLUE), *bounds])


def query(expression: str, legend: str = "") -> prometheus.Dataquery:
    return prometheus.Dataquery().expr(expression).legend_format(legend or "__auto").range()


def instant(expression: str, ref: str) -> prometheus.Dataquery:
    return prometheus.Dataquery().expr(expression).instant().format(PromQueryFormat.TABLE).ref_id(ref)


def number(title: str, expression: str, what: str, *, unit: str = "short", rising: tuple[float | None, float | None] = (None, None)) -> stat.Panel:
    panel = stat.Panel().title(title).description(what).datasource(SOURCE).unit(unit).span(4).height(4)
    panel = panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"])).graph_mode(c.BigValueGraphMode.AREA)
    panel = panel.color_mode(c.BigValueColorMode.VALUE).thresholds(steps(*rising))
    return panel.with_target(query(expression, title).ref_id("A"))


def lines(title: str, what: str, *queries: prometheus.Dataquery, unit: str = "short", width: int = 12) -> timeseries.Panel:
    panel = timeseries.Panel().title(title).description(what).datasource(SOURCE).unit(unit).min(0).span(width).height(8)
    panel = panel.line_width(2).fill_opacity(5).show_points(c.VisibilityMode.NEVER).span_nulls(60_000.0)
    panel = panel.legend(common.VizLegendOptions().display_mode(c.LegendDisplayMode.LIST).placement(c.LegendPlacement.BOTTOM).show_legend(True))
    panel = panel.tooltip(common.VizTooltipOptions().mode(c.TooltipDisplayMode.MULTI).sort(c.SortOrder.DESCENDING))
    panel = panel.color_scheme(dashboard.FieldColor().mode(d.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
    for ref, one in zip("ABC", queries, strict=False):
        panel = panel.with_target(one.ref_id(ref))
    return panel


def with_bounds(panel: timeseries.Panel, possible: float, drift: float) -> timeseries.Panel:
    return panel.thresholds(steps(possible, drift)).thresholds_style(common.GraphThresholdsStyleConfig().mode(c.GraphThresholdsStyleMode.DASHED))


def statuses(title: str, what: str, *queries: prometheus.Dataquery, width: int = WIDTH, height: int = 8) -> statetimeline.Panel:
    panel = statetimeline.Panel().title(title).description(what).datasource(SOURCE).mappings(STATUS).span(width).height(height)
    panel = panel.show_value(c.VisibilityMode.NEVER).merge_values(True).row_height(0.8).fill_opacity(90)
    panel = panel.color_scheme(dashboard.FieldColor().mode(d.FieldColorModeId.THRESHOLDS)).thresholds(steps(1, 2))
    for ref, one in zip("ABC", queries, strict=False):
        panel = panel.with_target(one.ref_id(ref))
    return panel


def source() -> dashboard.DatasourceVariable:
    return dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus")


def variable(name: str, label: str, metric: str, *, everything: bool = True) -> dashboard.QueryVariable:
    one = dashboard.QueryVariable(name).label(label).datasource(SOURCE).refresh(d.VariableRefresh.ON_TIME_RANGE_CHANGED)
    one = one.query({"query": f"label_values({metric}, {name})", "refId": f"variable-{name}"}).sort(d.VariableSort.ALPHABETICAL_ASC)
    if everything:
        # The label may be absent: `.*` takes that too, where Grafana's own list of all values does not.
        one = one.multi(True).include_all(True).all_value(".*").current(d.VariableOption(text=["All"], value=["$__all"], selected=True))
    return one


def page(title: str, uid: str, what: str) -> dashboard.Dashboard:
    one = dashboard.Dashboard(title).uid(uid).description(what).tags(["leeway"]).editable().refresh("30s").time("now-1h", "now").timezone("browser")
    one = one.tooltip(d.DashboardCursorSync.CROSSHAIR).with_variable(source())
    link = dashboard.DashboardLink("Leeway").type(d.DashboardLinkType.DASHBOARDS).tags(["leeway"]).include_vars(True).keep_time(True)
    return one.link(link)


def filled(one: dashboard.Dashboard, panels: list[Panel]) -> dashboard.Dashboard:
    for number_of_panel, panel in enumerate(panels, 1):
        one = one.with_panel(panel.id(number_of_panel))
    return one


def fleet() -> dashboard.Dashboard:
    one = page("Leeway: fleet", "leeway-fleet", "Which monitors and features drift, and whether the data flows.")
    one = one.with_variable(variable("job", "Application", "leeway_build_info"))
    one = one.with_variable(variable("monitor", "Monitor", 'leeway_drift_status{job=~"$job"}'))
    of = 'job=~"$job",monitor=~"$monitor"'
    link = dashboard.DashboardLink("One feature").url(
        "/d/leeway-feature?${__url_time_range}&var-job=${__data.fields.job}&var-monitor=${__data.fields.monitor}"
        "&var-scope=${__data.fields.scope}&var-feature=${__data.fields.feature}"
    )
    worst = table.Panel().title("Worst features").description("The highest PSI of any partition and segment; the status takes chance into account.")
    worst = worst.datasource(SOURCE).span(WIDTH).height(10).align(c.FieldTextAlignment.AUTO)
    by = "job, monitor, scope, segment, feature"
    worst = worst.with_target(instant(f'topk(50, max by ({by}) (feature:real_time_psi_score:max{{{of},feature!="*"}}))', "psi"))
    worst = worst.with_target(instant(f'max by ({by}) (feature:leeway_drift_status:max{{{of},feature!="*"}})', "status"))
    worst = worst.with_transformation(d.DataTransformerConfig(id_val="merge", options={}))
    renamed = {"Value #psi": "PSI", "Value #status": "Status"}
    organised = {"excludeByName": {"Time": True}, "renameByName": renamed, "indexByName": {"feature": 0, "Value #status": 1, "Value #psi": 2}}
    worst = worst.with_transformation(d.DataTransformerConfig(id_val="organize", options=organised))
    worst = worst.with_transformation(
        d.DataTransformerConfig(
            id_val="filterByValue", options={"filters": [{"fieldName": "PSI", "config": {"id": "isNotNull"}}], "match": "all", "type": "include"}
        )
    )
    worst = worst.sort_by([common.TableSortByFieldState().display_name("PSI").desc(True)]).data_links([link])
    worst = worst.override_by_name(
        "Status",
        [
            d.DynamicConfigValue(id_val="mappings", value=[mapping.to_json() for mapping in STATUS]),
            d.DynamicConfigValue(id_val="custom.cellOptions", value={"type": "color-background", "mode": "basic"}),
        ],
    )
    worst = worst.override_by_name("PSI", [d.DynamicConfigValue(id_val="decimals", value=3)])
    return filled(
        one,
        [
            number(
                "Features in drift",
                f'count(max by ({by}) (feature:leeway_drift_status:max{{{of},feature!="*"}}) == 2) or vector(0)',
                "In any partition, by segment.",
                rising=(None, 1),
            ),
            number(
                "Possible drift",
                f'count(max by ({by}) (feature:leeway_drift_status:max{{{of},feature!="*"}}) == 1) or vector(0)',
                "At worst.",
                rising=(1, None),
            ),
            number(
                "Records a second", 'sum(topic:leeway_records_processed:rate5m{job=~"$job",topic!~".+-repartition"})', "Valid ones.", unit="reqps"
            ),
            number("Lag", 'sum(topic:kafka_consumer_lag:sum{job=~"$job"})', "Records that wait, of all topics.", rising=(1e4, 1e6)),
            number(
                "Dead letters",
                'max(topic:leeway_dead_letters:ratio_rate15m{job=~"$job"})',
                "Share of the records of 15 minutes; of the worst topic.",
                unit="percentunit",
                rising=(0.01, 0.2),
            ),
            number("Workers", 'sum(up{job=~"$job"})', "That answer."),
            worst,
            statuses(
                "Summaries",
                "The mean over the features, by monitor, scope and segment; the worst partition.",
                query(f'max by (monitor, scope, segment) (feature:leeway_drift_status:max{{{of},feature="*"}})', "{{monitor}} {{scope}} {{segment}}"),
            ),
            lines(
                "Checks",
                "By the status of their summaries.",
                query(f"sum by (status) (monitor:drift_detection_events:rate5m{{{of}}})", "{{status}}"),
                unit="cps",
            ),
            lines("Lag by topic", "Records that wait.", query('topic:kafka_consumer_lag:sum{job=~"$job"}', "{{topic}}")),
            lines(
                "Records by topic",
                "Taken from the input, valid or not.",
                query('topic:kafka_messages_consumed:rate5m{job=~"$job"}', "{{topic}}"),
                unit="reqps",
            ),
            lines(
                "Alerts that fire",
                "Of Prometheus' rules; none is 0.",
                query('count by (alertname) (ALERTS{alertname=~"Leeway.+",alertstate="firing"}) or vector(0)', "{{alertname}}"),
            ),
        ],
    )


def feature() -> dashboard.Dashboard:
    one = page("Leeway: one feature", "leeway-feature", "How one feature of a monitor moves, partition by partition.")
    status = "leeway_drift_status"
    one = one.with_variable(variable("job", "Application", "leeway_build_info"))
    one = one.with_variable(variable("monitor", "Monitor", f'{status}{{job=~"$job"}}', everything=False))
    one = one.with_variable(variable("scope", "Scope", f'{status}{{job=~"$job",monitor="$monitor"}}', everything=False))
    inside = 'job=~"$job",monitor="$monitor",scope="$scope"'
    one = one.with_variable(variable("feature", "Feature", f'{status}{{{inside},feature!="*"}}', everything=False))
    one = one.with_variable(variable("segment", "Segment", f"{status}{{{inside}}}"))
    one = one.with_variable(variable("partition", "Partition", f"{status}{{{inside}}}"))
    of = inside + ',segment=~"$segment",partition=~"$partition"'
    this = of + ',feature="$feature"'
    psi = f"feature:real_time_psi_score:max{{{this}}}"
    return filled(
        one,
        [
            number("PSI", f"max({psi})", "The highest of what is selected.", rising=(0.1, 0.25)),
            number(
                "Windows in drift",
                f"count(feature:leeway_drift_status:max{{{this}}} == 2) or vector(0)",
                "Of partitions and segments.",
                rising=(None, 1),
            ),
            number("Windows", f"count(feature:leeway_drift_status:max{{{this}}})", "Partitions and segments."),
            number("Apart", f"max({psi}) - min({psi})", "Between the highest and the lowest PSI: do the windows agree?", rising=(0.1, 0.25)),
            number(
                "Missing values a second",
                'sum(rate(leeway_missing_values_total{job=~"$job",monitor="$monitor",feature="$feature"}[5m])) or vector(0)',
                "In all partitions.",
                unit="cps",
            ),
            number(
                "PSI of the summary", f'max(feature:real_time_psi_score:max{{{of},feature="*"}})', "The mean over all features.", rising=(0.1, 0.25)
            ),
            statuses(
                "Status",
                "Of each window; chance is taken into account.",
                query(f"feature:leeway_drift_status:max{{{this}}}", "{{scope}} {{partition}} {{segment}}"),
            ),
            with_bounds(
                lines(
                    "PSI",
                    "Dashed: the thresholds 0.1 and 0.25, where the monitor has no others.",
                    query(psi, "{{scope}} {{partition}} {{segment}}"),
                    width=WIDTH,
                ),
                0.1,
                0.25,
            ),
            lines(
                "Beside the other features",
                "The highest PSI of each feature in what is selected.",
                query(f"max by (feature) (feature:real_time_psi_score:max{{{of}}})", "{{feature}}"),
            ),
            lines(
                "Faulty values",
                "Shares at the last check, where the monitor has thresholds of quality; without them 0.",
                query(f"max by (kind) (leeway_quality_share{{{this}}}) or vector(0)", "{{kind}}"),
                unit="percentunit",
            ),
            lines(
                "Missing values",
                "In all partitions, by reason.",
                query(
                    'sum by (reason) (rate(leeway_missing_values_total{job=~"$job",monitor="$monitor",feature="$feature"}[5m])) or vector(0)',
                    "{{reason}}",
                ),
                unit="cps",
            ),
            lines(
                "Checks of the monitor",
                "By the status of their summaries.",
                query('sum by (status) (monitor:drift_detection_events:rate5m{job=~"$job",monitor="$monitor",scope="$scope"})', "{{status}}"),
                unit="cps",
            ),
        ],
    )


def engine() -> dashboard.Dashboard:
    one = page("Leeway: engine", "leeway-engine", "What the workers do: tasks, transactions, restores, memory.")
    one = one.with_variable(variable("job", "Application", "leeway_build_info"))
    one = one.with_variable(variable("instance", "Instance", 'leeway_build_info{job=~"$job"}'))
    of = 'job=~"$job",instance=~"$instance"'

    def rate(metric: str, by: str = "instance") -> str:
        return f"sum by ({by}) (rate({metric}{{{of}}}[5m]))"

    def quantile(share: float, metric: str) -> str:
        return f"histogram_quantile({share}, sum by (le) (rate({metric}_bucket{{{of}}}[5m])))"

    return filled(
        one,
        [
            number("Workers", f"sum(up{{{of}}})", "That answer."),
            number("Tasks that run", f'sum(leeway_tasks{{{of},state="running"}})', "One for each partition that is read."),
            number("Tasks that restore", f'sum(leeway_tasks{{{of},state="restoring"}})', "Their partitions wait.", rising=(1, None)),
            number(
                "Commit, 99 of 100 below",
                quantile(0.99, "leeway_commit_duration_seconds"),
                "From the end of an epoch to its committed transaction.",
                unit="s",
                rising=(1, 5),
            ),
            number(
                "Aborted",
                f"sum(increase(leeway_transactions_aborted_total{{{of}}}[1h]))",
                "Transactions within an hour; processed again.",
                rising=(1, 100),
            ),
            number("Starts", f"sum(changes(process_start_time_seconds{{{of}}}[1h]))", "Of workers that started anew within an hour.", rising=(1, 3)),
            lines("Tasks", "By state.", query(f"sum by (state) (leeway_tasks{{{of}}})", "{{state}}")),
            lines("Valid records", "By instance.", query(rate("leeway_records_processed_total"), "{{instance}}"), unit="reqps"),
            lines(
                "Lag",
                "The ten partitions with most.",
                query('topk(10, max by (topic, partition) (kafka_consumer_lag{job=~"$job"}))', "{{topic}} {{partition}}"),
            ),
            lines(
                "Commits",
                "Transactions a second.",
                query(rate("leeway_commits_total"), "{{instance}}"),
                query(rate("leeway_transactions_aborted_total"), "{{instance}} aborted"),
                query(rate("leeway_transactions_unknown_total"), "{{instance}} unknown"),
                unit="cps",
            ),
            lines(
                "Commit time",
                "From the end of an epoch to its committed transaction.",
                query(quantile(0.5, "leeway_commit_duration_seconds"), "half"),
                query(quantile(0.99, "leeway_commit_duration_seconds"), "99 of 100"),
                unit="s",
            ),
            lines(
                "Check time",
                "Of all features of a check.",
                query(quantile(0.5, "psi_calculation_duration_seconds"), "half"),
                query(quantile(0.99, "psi_calculation_duration_seconds"), "99 of 100"),
                unit="s",
            ),
            lines(
                "Restores",
                "Changelog records a second, and what is left of each.",
                query(rate("leeway_restore_records_total"), "{{instance}}"),
                query(f"sum by (topic) (leeway_restore_remaining{{{of}}}) or vector(0)", "left of {{topic}}"),
            ),
            lines(
                "Standbys",
                "How far copies are behind; without copies 0.",
                query(f"max by (instance) (leeway_standby_lag{{{of}}}) or vector(0)", "{{instance}}"),
            ),
            lines("Rebalances", "Within 5 minutes.", query(f"sum by (instance) (increase(leeway_rebalances_total{{{of}}}[5m]))", "{{instance}}")),
            lines(
                "Threads replaced",
                "Within 5 minutes.",
                query(f"sum by (instance) (increase(leeway_stream_threads_replaced_total{{{of}}}[5m]))", "{{instance}}"),
            ),
            lines("Dead letters", "By reason.", query(rate("leeway_dead_letters_total", "reason"), "{{reason}}"), unit="cps"),
            lines(
                "Late and skipped",
                "Of time windows: what they did not count, and windows that were not checked.",
                query(f"{rate('leeway_late_records_total', 'reason')} or vector(0)", "{{reason}}"),
                query(f"sum(rate(leeway_skipped_windows_total{{{of}}}[5m])) or vector(0)", "skipped windows"),
                unit="cps",
            ),
            lines("Memory", "Resident.", query(f"process_resident_memory_bytes{{{of}}}", "{{instance}}"), unit="bytes"),
            lines("Processor", "Seconds a second: 1 is a core.", query(rate("process_cpu_seconds_total"), "{{instance}}")),
            lines("State on disk", "RocksDB.", query(f"leeway_state_bytes{{{of}}}", "{{instance}}"), unit="bytes"),
            lines("Segments", "That live; without segments 0.", query(f"sum by (monitor) (leeway_segments{{{of}}}) or vector(0)", "{{monitor}}")),
        ],
    )


def built() -> dict[Path, str]:
    """What should stand in the folder."""
    made: dict[str, cog.Builder[d.Dashboard]] = {"fleet": fleet(), "feature": feature(), "engine": engine()}
    return {FOLDER / f"{name}.json": JSONEncoder(sort_keys=True, indent=1).encode(one.build()) + "\n" for name, one in made.items()}


if __name__ == "__main__":
    for file, text in built().items():
        json.loads(text)
        file.write_text(text)
        print(file.name, len(text), "bytes")
