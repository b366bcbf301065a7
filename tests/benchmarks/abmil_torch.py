"""A plain PyTorch loop of attention MIL, a bag a step, for `bench_mil.py --speed`; in an environment of its own.

The network and the loop are those of AttentionDeepMIL (Ilse et al. 2018) and of CLAM's ABMIL on embeddings: a dense
layer with ReLU, gated attention, one dense layer; Adam; a bag a step.
"""

import json
import resource
import sys
import time

import numpy as np
import torch
from torch import nn


class GatedAbmil(nn.Module):
    def __init__(self, values, width, attention):
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(values, width), nn.ReLU())
        self.content = nn.Sequential(nn.Linear(width, attention), nn.Tanh())
        self.gate = nn.Sequential(nn.Linear(width, attention), nn.Sigmoid())
        self.weight = nn.Linear(attention, 1, bias=False)
        self.classify = nn.Linear(width, 2)

    def forward(self, bag):
        h = self.encode(bag)
        a = torch.softmax(self.weight(self.content(h) * self.gate(h)).T, dim=1)
        return self.classify(a @ h)


def main():
    bags = np.load(sys.argv[1])
    width, attention, epochs, threads = (int(value) for value in sys.argv[2:6])
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    instances, starts, labels = torch.from_numpy(bags["instances"]), bags["starts"], torch.from_numpy(bags["labels"])
    model = GatedAbmil(instances.shape[1], width, attention)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-4, weight_decay=1e-4)
    measure = nn.CrossEntropyLoss()
    seconds, cpu = [], []
    for _ in range(epochs):
        started, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
        for number in np.random.permutation(len(labels)):
            optimizer.zero_grad()
            loss = measure(model(instances[starts[number] : starts[number + 1]]), labels[number : number + 1])
            loss.backward()
            optimizer.step()
            loss.item()
        now = resource.getrusage(resource.RUSAGE_SELF)
        seconds.append(time.perf_counter() - started)
        cpu.append(now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime)
    json.dump({"seconds": min(seconds), "cpu": min(cpu), "torch": torch.__version__}, sys.stdout)


if __name__ == "__main__":
    main()
