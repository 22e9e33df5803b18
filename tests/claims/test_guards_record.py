"""The stored verdicts on random settings, and what the script that stores them would notice."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
from claim_cases.pairs import small
from scripts import load

import linattn as la
from linattn.claims import Condition, Instance, get_claim
from linattn.claims.judge import STATUSES
from linattn.claims.table import check_instance

FOLDER = Path(__file__).parents[2] / "docs" / "record" / "guards"
