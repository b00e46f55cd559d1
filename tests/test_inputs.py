import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pandas as pd
import polars as pl
import pytest
import xarray as xr
from dualtape import log_density, model, plate, rv
from dualtape.ppl.inputs import Table, as_data
from dualtape.ppl.interpreters import discover


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (pd.Series([1.0, 2.0]), np.array([1.0, 2.0])),
        (pd.Series([1, 2]), np.array([1, 2])),
        (pd.Series([1, None], dtype="Int64"), np.array([1.0, np.nan])),
        (pd.Series([1, 2], dtype="Int32"), np.array([1, 2])),
        (pd.Series([True, False], dtype="boolean"), np.array([True, False])),
        (pd.Series([0.5, 2.0], dtype="float32"), np.array([0.5, 2.0])),
        (pd.Series(["a", "b"]), np.array(["a", "b"])),
        (pd.Index([3, 4]), np.array([3, 4])),
        (pl.Series([1.0, None]), np.array([1.0, np.nan])),
        (pl.Series([1, 2]), np.array([1, 2])),
        (xr.DataArray([[1.0, 2.0]]), np.array([[1.0, 2.0]])),
        ([1, 2, 3], np.array([1, 2, 3])),
        ([[1.0, 2.0], [3.0, 4.0]], np.array([[1.0, 2.0], [3.0, 4.0]])),
        (np.float32([0.5]), np.array([0.5])),
        (np.float16([0.5]), np.array([0.5])),
        (np.int8([1, 2]), np.array([1, 2])),
        (np.uint8([255]), np.array([255])),
    ],
    ids=str,
)
def test_columns_and_lists_become_arrays(given, expected):
    found = as_data(given)
    assert isinstance(found, np.ndarray)
    assert found.dtype == expected.dtype or expected.dtype.kind in "UO"
    np.testing.assert_array_equal(found, expected)


def test_numbers_of_jax_become_64_bit_ones():
    with jax.enable_x64(False):
        narrow = [jnp.array([0.5]), jnp.array([0.5], jnp.bfloat16)]
    assert [as_data(array).dtype for array in narrow] == [np.float64, np.float64]
    counts = jnp.array([1])
    assert as_data(counts) is counts


def test_what_has_a_structure_keeps_it():
    masked = np.ma.array([1.0, 2.0], mask=[True, False])
    assert as_data(masked) is masked
    assert as_data((3, 4)) == (3, 4)
    assert as_data(None) is None
    assert as_data("text") == "text"
    assert as_data(["a", "b"]) == ["a", "b"]
    ragged = as_data([[1.0], [1.0, 2.0]])
    assert [list(row) for row in ragged] == [[1.0], [1.0, 2.0]]
    found = as_data({"x": pd.Series([1.0]), "n": 3})
    assert isinstance(found["x"], np.ndarray)
    assert found["n"] == 3


FRAME = {"x": [0.0, 1.0, 2.0], "y": [0.1, 0.9, 2.2], "group": [0, 1, 1], "name": ["a", "b", "c"]}


@model
def regression(data):
    b = rv("b", dist.Normal(0.0, 1.0))
    a = rv("a", dist.Normal(jnp.zeros(2), 1.0))
    with plate("row", data["name"]):
        rv("y", dist.Normal(a[data["group"]] + b * data["x"], 1.0), obs=data["y"])


@pytest.mark.parametrize("table", [pd.DataFrame(FRAME), pl.DataFrame(FRAME)], ids=["pandas", "polars"])
def test_data_frames_are_read_by_column(table):
    values = {"b": 0.5, "a": np.array([0.1, 0.2])}
    plain = {name: np.array(column) for name, column in FRAME.items()}
    assert log_density(regression(table), values) == log_density(regression(plain), values)
    found = discover(regression(table))
    assert found.plates["row"].coords == ("a", "b", "c")
    wrapped = as_data(table)
    assert isinstance(wrapped, Table)
    assert len(wrapped) == 3
    assert list(wrapped) == list(FRAME)
    assert repr(wrapped) == repr(table)


def test_pandas_keeps_what_it_can_do():
    wrapped = as_data(pd.DataFrame(FRAME))
    np.testing.assert_array_equal(wrapped.x, FRAME["x"])
    assert wrapped.groupby("group").size().tolist() == [1, 2]
    with pytest.raises(KeyError):
        wrapped["q"]


def test_coordinates_of_xarray_label_plates():
    dataset = xr.Dataset({"y": ("school", [1.0, 2.0])}, coords={"school": ["A", "B"]})

    @model
    def schools(data):
        with plate("school", data["school"]):
            rv("y", dist.Normal(rv("m", dist.Normal()), 1.0), obs=data["y"])

    found = discover(schools(dataset))
    assert found.plates["school"].coords == ("A", "B")
    assert found.sites["y"].dims == ("school",)


def test_conditions_may_be_columns():
    @model
    def one():
        rv("y", dist.Normal(jnp.zeros(2), 1.0))

    np.testing.assert_array_equal(discover(one() | {"y": pd.Series([1.0, 2.0])}).sites["y"].obs, [1.0, 2.0])


def test_dimensions_of_xarray_are_those_of_plates_or_of_the_result():
    @model
    def grid(y, plates):
        m = rv("m", dist.Normal())
        if plates:
            with plate("unit", ["b", "a"]), plate("time", 3):
                rv("y", dist.Normal(m, 1.0), obs=y)
        else:
            rv("y", dist.Normal(m, jnp.ones((3, 2))), obs=y)

    values = np.arange(6.0).reshape(3, 2)
    y = xr.DataArray(values, dims=("time", "unit"), coords={"unit": ["a", "b"]})
    np.testing.assert_array_equal(discover(grid(y, True)).sites["y"].obs, values.T[::-1])
    found = discover(grid(y, False))
    assert found.sites["y"].dims == ("time", "unit")
    assert found.plates["unit"].coords == ("a", "b")
    np.testing.assert_array_equal(found.sites["y"].obs, values)
    with pytest.raises(ValueError, match=r"observed site 'y': plate 'unit' has the label 'b'"):
        discover(grid(y.assign_coords(unit=["a", "c"]), True))


def test_tables_are_matrices_of_their_columns():
    @model
    def linear(X, y):
        slope = rv("slope", dist.Normal(jnp.zeros(X.shape[1]), 1.0))
        rv("y", dist.Normal(X[["x", "group"]] @ slope, 1.0), obs=y)

    frame = pd.DataFrame(FRAME)[["x", "group"]]
    given = {"slope": np.array([0.5, 1.0])}
    matrix = np.column_stack([FRAME["x"], FRAME["group"]])

    @model
    def plain(X, y):
        rv("y", dist.Normal(X @ rv("slope", dist.Normal(jnp.zeros(2), 1.0)), 1.0), obs=y)

    assert log_density(linear(frame, frame["x"]), given) == log_density(plain(matrix, frame["x"]), given)
    with pytest.raises(TypeError, match="is no array of numbers; choose columns that are"):
        np.asarray(as_data(pd.DataFrame(FRAME)))


@pytest.mark.parametrize(
    ("labels", "coords"),
    [
        (pd.MultiIndex.from_tuples([("a", 1), ("b", 2)]), ("a, 1", "b, 2")),
        (pd.period_range("2020-01", periods=2, freq="M"), ("2020-01", "2020-02")),
        (xr.DataArray(["a", "b"]), ("a", "b")),
        (pd.Series([3, 4]), (3, 4)),
    ],
    ids=["tuples", "periods", "xarray", "numbers"],
)
def test_labels_of_plates_can_be_stored(labels, coords):
    @model
    def one():
        with plate("p", labels):
            rv("x", dist.Normal())

    assert discover(one()).plates["p"].coords == coords


def test_labels_that_stand_for_several_entries_are_refused():
    @model
    def one(labels):
        with plate("p", labels):
            rv("x", dist.Normal())

    with pytest.raises(ValueError, match="plate 'p': the label 'b' stands for several entries"):
        discover(one(["a", "b", "b"]))
