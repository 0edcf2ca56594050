"""Files of structures, in any format that ASE reads; data that ASE's reader would lose silently are reported."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from ase import Atoms

from psiflow_core.errors import StructureError
from psiflow_core.labels.xyz_index import frame_offsets

Selection = slice | int

CELLS = {"lattice", "cell", "unitcell", "box", "latticevectors", "cellvectors", "cellpar", "cryst1", "cellabcabc"}
"""Names of a cell that ASE does not read from comment lines, in small letters and letters only."""

OTHER_UNITS = re.compile(r"(?i)(?<![a-z])(bohrs?|hartrees?)(?![a-z])|atomic_?units?")
"""Units other than Å and eV."""

XYZ = ("xyz", "extxyz")

DATABASES = ("db", "json")

MISNAMED = "name its format: ase.io.write('start.xyz', ase.io.read(path, index=':', format=…)), and give start.xyz"

ELECTRONS = {
    "gaussian-in": re.compile(r"^\s*(?P<charge>-?\d+)[ ,]+(?P<spin>\d+)\s*$", re.MULTILINE),
    "gaussian-out": re.compile(r"Charge\s*=\s*(?P<charge>-?\d+)\s+Multiplicity\s*=\s*(?P<spin>\d+)"),
    "orca-output": re.compile(
        r"Total Charge\s+Charge\s+\.+\s*(?P<charge>-?\d+)\s+Multiplicity\s+Mult\s+\.+\s*(?P<spin>\d+)"
    ),
}
"""Charge and multiplicity in inputs and outputs of programs, which ASE's readers ignore."""

MOLFILES = ("mol", "sdf")

FORMAL = re.compile(r"^M  CHG\s+\d+((?:\s+\d+\s+-?\d+)+)", re.MULTILINE)
"""Formal charges of an MDL molfile: pairs of atom and charge."""


def read(path: str | Path) -> list[Atoms]:
    """All structures of a file in any format that ASE reads, or those of a selection: ``md.xyz@-1``, ``md.xyz@::10``.

    Raises:
        StructureError: the file is missing, unreadable or empty, the selection is invalid, or data in the file that
            determine the structures would be lost.
    """
    import ase.io
    from ase.io.formats import filetype

    file, selection = selected(path)
    try:
        known = filetype(str(file))
        if known in XYZ:
            frame_offsets(file)
        content = ase.io.read(file, index=selection, do_not_split_by_at_sign=True)
    except StructureError:
        raise
    except Exception as error:  # ASE's readers may raise anything
        raise StructureError(unreadable(file, error)) from None
    structures = [content] if isinstance(content, Atoms) else list(content)
    if not structures:
        raise StructureError(f"{path} holds no structure, read as {known}; if it is of another format, {MISNAMED}")
    if known in DATABASES:
        _add_columns(file, selection, structures)
    for number, atoms in enumerate(structures):
        refuse_losses(atoms, f"{path} {number}")
    _look_into(file, known, structures)
    return structures


def selected(path: str | Path) -> tuple[Path, Selection]:
    """The file and the selection of its structures; the file's own name may contain an @."""
    file = Path(path)
    before, at, after = str(path).rpartition("@")
    if file.exists() or not at or not Path(before).exists():
        return file, slice(None)
    words = after.split(":")
    if len(words) > 3 or not all(re.fullmatch(r"-?\d*", word) and word != "-" for word in words) or not after:
        raise StructureError(f"{path}: '{after}' is not a selection of {before}; write @-1, @0:10 or @::10")
    if len(words) == 1:
        return Path(before), int(after)
    return Path(before), slice(*(int(word) if word else None for word in words))


def unreadable(path: Path, error: Exception) -> str:
    """The message about a file that cannot be read, with the reader's own words."""
    if not path.exists():
        return f"cannot read structures from {path.absolute()}: there is no such file; check the path"
    if path.is_dir():
        return f"cannot read structures from {path.absolute()}: it is a folder; give a file in it, or a list of files"
    special = re.search(r"Got info item (\w+), expecting special 3x3 matrix", str(error))
    if special:
        return f"{path.absolute()}: {special[1]} has not nine numbers, as extended XYZ wants; write xx xy xz yx … zz"
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return f"cannot read structures from {path.absolute()} ({said}); give a file that ase.io.read reads, such as .xyz"


def refuse_losses(atoms: Atoms, where: str) -> None:
    """Refuse a structure if ASE's reader has ignored some of its data.

    Args:
        atoms: the structure.
        where: the beginning of the error; the formula follows.
    """
    for lost in _lost(atoms):
        raise StructureError(f"{where} ({atoms.get_chemical_formula()}): {lost}")


def _lost(atoms: Atoms) -> Iterator[str]:
    """The data of a structure that ASE's reader has ignored."""
    names = {str(name): value for name, value in atoms.info.items()}
    if not atoms.cell.rank:
        for name in names:
            if re.sub(r"[^a-z0-9]", "", name.lower()) in CELLS:
                yield (
                    f"it has a cell under the name '{name.strip(':')}', which is not read; write "
                    'Lattice="ax ay az bx by bz cx cy cz", in Å'
                )
    for name, value in names.items():
        unit = OTHER_UNITS.search(f"{name} {value}" if isinstance(value, str) else name)
        if unit and value is not False:
            yield f"its comment says {unit[0]}, but lengths are read in Å, energies in eV; convert them, and remove it"
    yield from _partial(atoms)


def _partial(atoms: Atoms) -> Iterator[str]:
    """Sites with partial occupancy, or occupied by several elements, as in CIF and PDB files."""
    sites = atoms.info.get("occupancy")
    for kind, here in sites.items() if isinstance(sites, dict) else ():
        if len(here) > 1 or any(abs(share - 1) > 1e-3 for share in here.values()):
            shares = ", ".join(f"{share:g} {symbol}" for symbol, share in here.items())
            yield f"the site{_site(atoms, int(kind))} is occupied by {shares}; choose one order of whole atoms"
    occupancies = np.asarray(atoms.arrays.get("occupancy", np.ones(0)), float)
    for atom in np.flatnonzero((occupancies > 1e-3) & (occupancies < 1 - 1e-3)):
        yield f"atom {atom} has occupancy {occupancies[atom]:g}; choose one position for each atom, with occupancy 1"


def _site(atoms: Atoms, kind: int) -> str:
    """The place of the first atom of a kind, if the reader gives kinds."""
    found = np.flatnonzero(atoms.arrays.get("spacegroup_kinds", np.zeros(0)) == kind)
    return f" of atom {found[0]}, at {np.round(atoms.positions[found[0]], 3).tolist()} Å," if len(found) else ""


def _opened(file: Path) -> IO[str]:
    """A text file, compressed or not, opened as by ASE."""
    from ase.io.formats import open_with_compression

    return io.TextIOWrapper(open_with_compression(str(file), "rb"), errors="replace")


def _add_columns(file: Path, selection: Selection, structures: Sequence[Atoms]) -> None:
    import ase.db

    with contextlib.redirect_stdout(io.StringIO()):
        rows = list(ase.db.connect(file).select())
    rows = rows[selection] if isinstance(selection, slice) else [rows[selection]]
    for atoms, row in zip(structures, rows, strict=True):
        add_columns(atoms, row)


def add_columns(atoms: Atoms, row: Any) -> None:
    """Add the further numbers in a row of an ASE database, which `ase.io.read` ignores."""
    beside = {**row.data, **row.key_value_pairs}
    for name in beside:
        value = vars(row).get(name, beside[name])  # a row's own `charge` is the sum of initial charges, and hides it
        array = np.asarray(value)
        if array.shape[:1] == (len(atoms),) and array.ndim == 2 and array.dtype.kind in "iuf":
            atoms.arrays.setdefault(name, array)
        else:
            atoms.info.setdefault(name, value)


def _look_into(file: Path, known: str, structures: Sequence[Atoms]) -> None:
    """Find data in a file of a known format that ASE's reader has ignored."""
    if known not in (*ELECTRONS, *MOLFILES, "lammps-dump-text", "proteindatabank"):
        return
    with _opened(file) as stream:
        text = stream.read()
    if known == "proteindatabank":
        _set_electrons(file, structures, [{"charge": total} for total in _pdb_charges(text)])
    elif known == "lammps-dump-text":
        _refuse_types(file, text, structures)
    elif known in ELECTRONS:
        _set_electrons(file, structures, [match.groupdict() for match in ELECTRONS[known].finditer(text)])
    else:
        first, _, others = text.partition("$$$$")
        if others.strip():
            raise StructureError(f"{file.absolute()} holds several molecules, but ASE reads only one; split the file")
        pairs = [match[1].split() for match in FORMAL.finditer(first)]
        charge = sum(int(number) for pair in pairs for number in pair[1::2])
        _set_electrons(file, structures, [{"charge": charge}] if pairs else [])


def _set_electrons(file: Path, structures: Sequence[Atoms], given: Sequence[Mapping[str, Any]]) -> None:
    """Set the charge and spin that a file gives on its structures."""
    numbers = {tuple(sorted((name, int(value)) for name, value in one.items())) for one in given}
    if len(numbers) > 1:
        raise StructureError(
            f"{file.absolute()} has several charges or multiplicities; give structures with a single one"
        )
    for atoms in structures:
        for name, value in next(iter(numbers), ()):
            atoms.info.setdefault(name, value)


def _pdb_charges(text: str) -> list[int]:
    """The charge of each model of a PDB file, from columns 79 and 80 ("1+"); empty if no atom has one."""
    models = []
    for model in text.split("ENDMDL"):
        atoms = [line for line in model.splitlines() if line.startswith(("ATOM  ", "HETATM"))]
        found = [re.fullmatch(r"(\d)([+-])", line[78:80]) for line in atoms]
        if atoms:
            models.append(sum(int(one[2] + one[1]) for one in found if one))
    return models if any(models) else []


def _refuse_types(file: Path, text: str, structures: Sequence[Atoms]) -> None:
    """Refuse LAMMPS types without elements or masses: ASE would read the types 1, 2, 3 as H, He, Li."""
    header = next((line.split() for line in text.splitlines() if line.startswith("ITEM: ATOMS")), [])
    if not {"element", "mass"} & set(header):
        numbers = sorted({int(number) for atoms in structures for number in atoms.numbers})
        raise StructureError(
            f"{file.absolute()}: it has types {numbers} but no elements; write it with 'dump … custom … element' and "
            "'dump_modify … element', or convert it with ase.io.read(…, specorder=[…])"
        )
