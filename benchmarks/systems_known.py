"""The names of the systems, their titles, and whose they are; imports none of them."""

from __future__ import annotations

# "ours" runs in this environment: cellmill and the baselines made for the comparison; "peer" in that of the peers
SYSTEMS = {
    "cellmill": "ours",
    "memory": "ours",
    "memmap": "ours",
    "h5ad": "peer",
    "cellstream": "peer",
    "scdl": "peer",
    "hf": "peer",
    "mds": "peer",
    "annbatch": "peer",
}

TITLES = {
    "cellmill": "cellmill",
    "memory": "scipy CSR in memory",
    "memmap": "CSR memory map + scipy",
    "h5ad": "h5ad, anndata backed",
    "cellstream": "cellstream, cell layout",
    "scdl": "bionemo-scdl, uint16",
    "hf": "HF datasets, arrow format",
    "mds": "MosaicML MDS, LocalDataset",
    "annbatch": "annbatch, blocks of 512",
    "h5ad gzip": "h5ad, gzip",
}
