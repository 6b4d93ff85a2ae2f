"""One rank of a ZeRO-3 run on CPU; prints its losses before and after sharding. Run by tests/vlm/test_sharded.py."""

import json
import os
import sys

import torch

rank, port, family, tied, tower = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4] == "tied", sys.argv[5]
os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
os.environ["DS_ACCELERATOR"] = "cpu"

import deepspeed  # noqa: E402

from tests.helpers.model_inputs import EVERYTHING, batch, mixed_samples, sample, tiny_model  # noqa: E402

# features of early blocks, the later ones run only so that their parameters get gradients
EARLY = dict(tower_num_hidden_layers=4, vision_features={"layers": [0, 1]})
torch.set_num_threads(1)
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # plain gloo: nothing to compile
deepspeed.init_distributed("gloo")
extras, summary = {"plain": ({}, 0), "everything": (EVERYTHING, 2), "early": (EARLY, 0)}[tower]
model = tiny_model(family, tubelet=2, text_tie_word_embeddings=tied, **extras).train()
pictures = batch(*mixed_samples(2, summary), side="right")
text, one = batch(sample(6), sample(4), side="right"), batch(sample(2, (2, 2), 3, summary=summary))
mine = [[pictures, text, one], [text, one, pictures]][rank]  # no two ranks ever hold the same kind of batch


def labels_of(inputs: dict) -> torch.Tensor:
    return inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)


before = [model(**inputs, labels=labels_of(inputs), use_cache=False).loss.item() for inputs in mine]
config = {
    "train_micro_batch_size_per_gpu": 1,
    "zero_optimization": {
        "stage": 3,
        "stage3_param_persistence_threshold": 0,
        "reduce_bucket_size": 5000,
        "stage3_prefetch_bucket_size": 5000,
    },
    "zero_allow_untested_optimizer": True,
}
optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
engine, *_ = deepspeed.initialize(model=model, model_parameters=model.parameters(), optimizer=optimizer, config=config)
after = []
for inputs in mine:
    loss = engine(**inputs, labels=labels_of(inputs), use_cache=False).loss
    engine.backward(loss)
    engine.step()
    after.append(loss.item())
sharded = hasattr(model.vision_model.embeddings.cls_register_token, "ds_id")
sys.stdout.write("RESULT " + json.dumps({"before": before, "after": after, "sharded": sharded}) + "\n")
