"""What launchers leave in the environment: srun's variables become torch's, accelerate's settings go."""

import pytest

from training.launchers import accelerate_variables, first_host, slurm_variables
from training.recipe import RecipeError

STEP = {
    "SLURM_STEP_NUM_TASKS": "16", "SLURM_PROCID": "11", "SLURM_LOCALID": "3", "SLURM_JOB_ID": "4711",
    "SLURM_STEP_NODELIST": "gpu[03-04]", "SLURM_JOB_NODELIST": "gpu[01-04]",
}  # fmt: skip


def test_a_task_of_srun_becomes_a_rank():
    found = slurm_variables(STEP, devices=8)
    assert {key: found[key] for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR")} == {
        "RANK": "11", "WORLD_SIZE": "16", "LOCAL_RANK": "3", "MASTER_ADDR": "gpu03",
    }  # fmt: skip
    other = slurm_variables(STEP | {"SLURM_PROCID": "0", "SLURM_LOCALID": "0"}, devices=8)
    assert other["MASTER_PORT"] == found["MASTER_PORT"], "all tasks of a job must meet at one port"
    assert slurm_variables(STEP | {"SLURM_JOB_ID": "4712"}, devices=8)["MASTER_PORT"] != found["MASTER_PORT"]


def test_a_task_that_sees_one_gpu_takes_that_one():
    assert slurm_variables(STEP, devices=1)["LOCAL_RANK"] == "0"
    assert slurm_variables(STEP, devices=0)["LOCAL_RANK"] == "3"  # CPU


def test_what_was_set_by_hand_or_by_a_launcher_counts_more():
    found = slurm_variables(STEP | {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "1234"}, devices=8)
    assert (found["MASTER_ADDR"], found["MASTER_PORT"]) == ("10.0.0.1", "1234")
    assert slurm_variables(STEP | {"RANK": "0"}, devices=8) == {}


@pytest.mark.parametrize("step", [{}, {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}])
def test_a_batch_script_and_a_single_task_are_no_ranks(step):
    assert slurm_variables({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "16", "SLURM_PROCID": "0", **step}, devices=8) == {}


@pytest.mark.parametrize(
    "nodes, host",
    [
        ("gpu03", "gpu03"),
        ("gpu03,gpu04", "gpu03"),
        ("gpu[03-06,10],cpu1", "gpu03"),
        ("rack[2,5]-node[010-012]", "rack2-node010"),
        ("a[7]", "a7"),
    ],
)
def test_first_host(nodes, host):
    assert first_host(nodes) == host


def test_a_node_list_that_names_no_host_is_refused():
    with pytest.raises(RecipeError, match="MASTER_ADDR"):
        first_host("")


def test_accelerate_decides_nothing():
    environment = {
        "ACCELERATE_MIXED_PRECISION": "fp16", "ACCELERATE_USE_DEEPSPEED": "true", "FSDP_VERSION": "2", "RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
    }  # fmt: skip
    found = accelerate_variables(environment, "cpu")
    assert sorted(found) == ["ACCELERATE_MIXED_PRECISION", "ACCELERATE_USE_DEEPSPEED", "FSDP_VERSION"]
    assert accelerate_variables({"PATH": "/bin"}, "cpu") == []


def test_accelerate_that_started_one_cpu_process_is_refused():
    environment = {"ACCELERATE_USE_CPU": "True", "MASTER_ADDR": "127.0.0.1"}
    with pytest.raises(RecipeError, match="--use_deepspeed --num_processes N"):
        accelerate_variables(environment, "cpu")
    assert accelerate_variables(environment, "cuda") == ["ACCELERATE_USE_CPU"]
