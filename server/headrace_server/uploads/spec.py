"""What all blocks of an upload share, such as where they are stored."""

from headrace_compute.delta import tables
from headrace_compute.model import StoreConfig, UploadSpec
from headrace_server.rows.options import UploadOptions
from headrace_server.uploads.session import session_prefix


def spec_of(config: StoreConfig, options: UploadOptions, upload_id: str, started_us: int) -> UploadSpec:
    """What every block of the upload shares."""
    if options.data_type == "interactions":
        table = tables.interactions_key(config, options.tenant)
    else:
        table = tables.items_key(config, options.tenant)
    return UploadSpec(
        upload_id=upload_id,
        data_type=options.data_type,
        # A folder for each upload: whatever it leaves behind is found without a look at other uploads.
        part_prefix=f"{table}/{upload_id}/",
        rejects_prefix=f"{tables.rejects_key(config, options.tenant)}/{upload_id}/",
        sidecar_prefix=f"{session_prefix(config, options.tenant, upload_id)}sidecars/",
        started_us=started_us,
        latest_us=started_us + options.skew_us,
        reject_unknown=options.reject_unknown,
    )
