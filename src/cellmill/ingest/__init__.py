"""Ingest (floor 4): from inputs to a store, proven and reported. The only place where sources and store meet."""

from __future__ import annotations

from cellmill.ingest.about import About, read_about
from cellmill.ingest.append import append_inputs, plan_append
from cellmill.ingest.array import PartDone, build_part, commit
from cellmill.ingest.estimate import Estimate, estimate
from cellmill.ingest.fetch import fetched_inputs
from cellmill.ingest.filters import CellFilters
from cellmill.ingest.gene_columns import align_columns, species_of
from cellmill.ingest.obs_map import ObsMap
from cellmill.ingest.options import BuildOptions, memory_bytes_of, scratch_of
from cellmill.ingest.plan import BuildPlan, Skipped, SourcePlan
from cellmill.ingest.planning import plan_build
from cellmill.ingest.run import build
from cellmill.ingest.summary import summary_line
from cellmill.ingest.vocabulary import BuiltVocabulary, VocabularyPart, build_vocabulary

__all__ = [
    "About",
    "BuildOptions",
    "BuildPlan",
    "BuiltVocabulary",
    "CellFilters",
    "Estimate",
    "ObsMap",
    "PartDone",
    "Skipped",
    "SourcePlan",
    "VocabularyPart",
    "align_columns",
    "append_inputs",
    "build",
    "build_part",
    "build_vocabulary",
    "commit",
    "estimate",
    "fetched_inputs",
    "memory_bytes_of",
    "plan_append",
    "plan_build",
    "read_about",
    "scratch_of",
    "species_of",
    "summary_line",
]
