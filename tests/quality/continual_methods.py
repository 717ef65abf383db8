"""Continual learners under one contract, for `tests/quality/continual.py`: tasks come one after another, are seen once, labels are 0..9.

Gradient methods train a 64-256-10 perceptron by plain SGD, written out in numpy (a batch of 16 is too small for a framework to pay).
Everything random comes from the generator that a learner is given.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ndml.btsp.kernels.choose import cpu_kernels
from ndml.btsp.kernels.ports import I32, words_for
from ndml.btsp.recruitment import RecruitmentHead, RecruitmentOptions

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

CLASSES = 10
BATCH = 16
Parameters = list[F32]


class Learner(Protocol):
    """`fit` sees one task, images [n, d] in 0..1 with labels; `predict` answers among all classes seen so far."""

    def fit(self, images: F32, labels: I64) -> None: ...

    def predict(self, images: F32) -> I64: ...

    @property
    def stored(self) -> int:
        """Training items whose content the learner keeps or wrote."""
        ...

    @property
    def nbytes(self) -> int:
        """What has to be kept between tasks."""
        ...


def _best(scores: NDArray[np.generic]) -> I64:
    """The class of the highest score in each row, the first of equals."""
    return np.asarray(scores.argmax(1), np.int64)


class Perceptron:
    """Naive SGD, and the base of what is done against its forgetting."""

    def __init__(self, random: np.random.Generator, inputs: int, rate: float = 0.1, epochs: int = 10, hidden: int = 256) -> None:
        self.random, self.rate, self.epochs = random, rate, epochs
        shapes = ((inputs, hidden), (1, hidden), (hidden, CLASSES), (1, CLASSES))
        widths = np.sqrt([inputs, inputs, hidden, hidden])
        self.parameters = [(random.uniform(-1, 1, s) / w).astype(np.float32) for s, w in zip(shapes, widths, strict=True)]

    @property
    def stored(self) -> int:
        return 0

    @property
    def nbytes(self) -> int:
        return sum(p.nbytes for p in self.parameters)

    def predict(self, images: F32) -> I64:
        return _best(self._forward(images)[1])

    def fit(self, images: F32, labels: I64) -> None:
        for _ in range(self.epochs):
            order = self.random.permutation(len(images))
            for start in range(0, len(order), BATCH):
                batch = order[start : start + BATCH]
                self._step(self._gradient(*self._mixed(images[batch], labels[batch])))

    def _mixed(self, images: F32, labels: I64) -> tuple[F32, I64, F32]:
        """A batch as it is trained on, with the weight of each item's loss."""
        return images, labels, np.full(len(images), 1 / len(images), np.float32)

    def _step(self, gradient: Parameters) -> None:
        for parameter, slope in zip(self.parameters, gradient, strict=True):
            parameter -= np.float32(self.rate) * slope

    def _forward(self, images: F32) -> tuple[F32, F32]:
        hidden = np.maximum(images @ self.parameters[0] + self.parameters[1], 0)
        return hidden, hidden @ self.parameters[2] + self.parameters[3]

    def _errors(self, images: F32, labels: I64, weight: F32) -> tuple[F32, F32, F32]:
        """(hidden activity [b, h], dloss/dhidden [b, h], dloss/dlogits [b, 10]) of the weighted cross-entropy."""
        hidden, logits = self._forward(images)
        delta = np.exp(logits - logits.max(1, keepdims=True))
        delta /= delta.sum(1, keepdims=True)
        delta[np.arange(len(labels)), labels] -= 1
        delta *= weight[:, None]
        return hidden, (delta @ self.parameters[2].T) * (hidden > 0), delta

    def _gradient(self, images: F32, labels: I64, weight: F32) -> Parameters:
        hidden, inner, delta = self._errors(images, labels, weight)
        return [images.T @ inner, inner.sum(0, keepdims=True), hidden.T @ delta, delta.sum(0, keepdims=True)]


class Ewc(Perceptron):
    """Elastic weight consolidation (Kirkpatrick et al. 2017), one quadratic anchor a task.

    The anchors' pull is applied as a proximal step, so a stiff penalty cannot diverge; explicit steps do (NaN at rate .1, strength 100).
    The anchors of all tasks add up to one diagonal and one linear term: the same gradient, at constant cost.
    """

    def __init__(self, random: np.random.Generator, inputs: int, strength: float = 100.0, rate: float = 0.1) -> None:
        super().__init__(random, inputs, rate)
        self.strength = strength
        self._fisher = [np.zeros_like(p) for p in self.parameters]
        self._pull = [np.zeros_like(p) for p in self.parameters]

    @property
    def nbytes(self) -> int:
        return 3 * super().nbytes

    def fit(self, images: F32, labels: I64) -> None:
        super().fit(images, labels)
        sample = images[self.random.permutation(len(images))[:200]]
        for total, pull, part, parameter in zip(self._fisher, self._pull, self._information(sample), self.parameters, strict=True):
            total += part
            pull += part * parameter

    def _step(self, gradient: Parameters) -> None:
        super()._step(gradient)
        reach = np.float32(self.rate * self.strength)
        for parameter, total, pull in zip(self.parameters, self._fisher, self._pull, strict=True):
            parameter += reach * pull
            parameter /= 1 + reach * total

    def _information(self, images: F32) -> Parameters:
        """Diagonal Fisher information, labels drawn from the model. The square of an outer product is the product of squares."""
        logits = self._forward(images)[1]
        labels = (logits + self.random.gumbel(size=logits.shape)).argmax(1)
        hidden, inner, delta = self._errors(images, labels, np.ones(len(images), np.float32))
        squares = [(images**2).T @ inner**2, (inner**2).sum(0, keepdims=True), (hidden**2).T @ delta**2, (delta**2).sum(0, keepdims=True)]
        return [square / np.float32(len(images)) for square in squares]


class Replay(Perceptron):
    """SGD with a reservoir of past items, 32 of which join each batch with a loss of their own."""

    def __init__(self, random: np.random.Generator, inputs: int, rate: float = 0.1, buffer: int = 200) -> None:
        super().__init__(random, inputs, rate)
        self._images, self._labels = np.zeros((buffer, inputs), np.float32), np.zeros(buffer, np.int64)
        self._seen = 0

    @property
    def stored(self) -> int:
        return min(self._seen, len(self._labels))

    @property
    def nbytes(self) -> int:
        return super().nbytes + self._images.nbytes + self._labels.nbytes

    def _mixed(self, images: F32, labels: I64) -> tuple[F32, I64, F32]:
        if not self.stored:
            return super()._mixed(images, labels)
        past = self.random.choice(self.stored, min(32, self.stored), replace=False)
        weight = np.repeat(np.array([1 / len(images), 1 / len(past)], np.float32), [len(images), len(past)])
        return np.concatenate([images, self._images[past]]), np.concatenate([labels, self._labels[past]]), weight

    def fit(self, images: F32, labels: I64) -> None:
        super().fit(images, labels)
        for image, label in zip(images, labels, strict=True):
            place = self._seen if self._seen < len(self._labels) else int(self.random.integers(self._seen + 1))
            if place < len(self._labels):
                self._images[place], self._labels[place] = image, label
            self._seen += 1


class NearestMean:
    """NCM: the class whose mean image is nearest."""

    def __init__(self, inputs: int) -> None:
        self._sums, self._counts = np.zeros((CLASSES, inputs)), np.zeros(CLASSES)

    stored = 0

    @property
    def nbytes(self) -> int:
        return self._sums.nbytes + self._counts.nbytes

    def fit(self, images: F32, labels: I64) -> None:
        np.add.at(self._sums, labels, images)
        self._counts += np.bincount(labels, minlength=CLASSES)

    def predict(self, images: F32) -> I64:
        means = self._sums / np.maximum(self._counts, 1)[:, None]
        distance = (means**2).sum(1) - 2 * images @ means.T
        return _best(np.where(self._counts > 0, -distance, -np.inf))


class Slda:
    """Streaming linear discriminant analysis (Hayes & Kanan 2020): running class means, one shared running covariance, shrunk."""

    def __init__(self, inputs: int, shrinkage: float = 1e-2) -> None:
        self.shrinkage = shrinkage
        self._means, self._counts = np.zeros((CLASSES, inputs)), np.zeros(CLASSES)
        self._covariance, self._seen = np.zeros((inputs, inputs)), 0

    stored = 0

    @property
    def nbytes(self) -> int:
        return self._means.nbytes + self._counts.nbytes + self._covariance.nbytes

    def fit(self, images: F32, labels: I64) -> None:
        for image, label in zip(images.astype(np.float64), labels, strict=True):
            off = image - self._means[label]
            self._covariance += (np.outer(off, off) * self._seen / (self._seen + 1) - self._covariance) / (self._seen + 1)
            self._means[label] += off / (self._counts[label] + 1)
            self._counts[label] += 1
            self._seen += 1

    def predict(self, images: F32) -> I64:
        mixed = (1 - self.shrinkage) * self._covariance + self.shrinkage * np.eye(len(self._covariance))
        weights = np.linalg.solve(mixed, self._means.T)  # [d, 10]
        scores = images @ weights - 0.5 * (self._means * weights.T).sum(1)
        return _best(np.where(self._counts > 0, scores, -np.inf))


class RanPac:
    """RanPAC (McDonnell et al. 2023): a frozen random projection, rectified, with class prototypes decorrelated by a ridge."""

    def __init__(self, random: np.random.Generator, inputs: int, ridge: float = 1.0, width: int = 2000) -> None:
        self.ridge = ridge * width
        self._projection = random.standard_normal((inputs, width), np.float32)
        self._gram, self._prototypes = np.zeros((width, width), np.float32), np.zeros((width, CLASSES), np.float32)
        self._weights: F32 | None = None

    stored = 0

    @property
    def nbytes(self) -> int:
        return self._projection.nbytes + self._gram.nbytes + self._prototypes.nbytes

    def _features(self, images: F32) -> F32:
        return np.maximum((images - np.float32(0.3)) @ self._projection, 0)

    def fit(self, images: F32, labels: I64) -> None:
        features = self._features(images)
        self._gram += features.T @ features
        self._prototypes += features.T @ np.eye(CLASSES, dtype=np.float32)[labels]
        self._weights = None

    def predict(self, images: F32) -> I64:
        if self._weights is None:
            ridge = np.float32(self.ridge) * np.eye(len(self._gram), dtype=np.float32)
            self._weights = np.linalg.solve(self._gram + ridge, self._prototypes)
        return _best(self._features(images) @ self._weights)


class NearestNeighbours:
    """Keeps every image; the majority of the three nearest."""

    def __init__(self, inputs: int) -> None:
        self._images, self._labels = np.zeros((0, inputs), np.float32), np.zeros(0, np.int64)

    @property
    def stored(self) -> int:
        return len(self._labels)

    @property
    def nbytes(self) -> int:
        return self._images.nbytes + self._labels.nbytes

    def fit(self, images: F32, labels: I64) -> None:
        self._images, self._labels = np.concatenate([self._images, images]), np.concatenate([self._labels, labels])

    def predict(self, images: F32) -> I64:
        distance = (self._images**2).sum(1) - 2 * images @ self._images.T
        near = np.argpartition(distance, 2, axis=1)[:, :3]
        votes = np.zeros((len(images), CLASSES), np.int64)
        np.add.at(votes, (np.arange(len(images))[:, None], self._labels[near]), 1)
        return _best(votes)


class SparseCoded:
    """A fixed random sparse code: the 128 of 4,096 units that a Gaussian projection of the centred image drives most."""

    UNITS, ACTIVE = 4096, 128

    def __init__(self, random: np.random.Generator, inputs: int) -> None:
        self._projection = random.standard_normal((inputs, self.UNITS), np.float32)
        self._seen = 0

    def _codes(self, images: F32) -> I32:
        drive = (images - images.mean(1, keepdims=True)) @ self._projection
        return np.argpartition(-drive, self.ACTIVE, axis=1)[:, : self.ACTIVE].astype(np.int32)

    def _keys(self, count: int) -> list[bytes]:
        """A key for each item: its number."""
        self._seen += count
        return [i.to_bytes(16, "little") for i in range(self._seen - count, self._seen)]


class Btsp(SparseCoded):
    """Our head."""

    def __init__(self, random: np.random.Generator, inputs: int, options: RecruitmentOptions) -> None:
        super().__init__(random, inputs)
        self.head = RecruitmentHead(options)

    @property
    def stored(self) -> int:
        return self.head.writes

    @property
    def nbytes(self) -> int:
        return self.head.nbytes + self._projection.nbytes

    def fit(self, images: F32, labels: I64) -> None:
        self.head.learn(self._codes(images), labels.tolist(), self._keys(len(labels)))

    def predict(self, images: F32) -> I64:
        return np.maximum(self.head.predict(self._codes(images)).labels, 0)


class PublishedBtsp(SparseCoded):
    """The rule as published: 33 random plateaus set and 33 clear (or both flip) an item's synapses, no neuron is cleared, no gate.

    A neuron answers with the label of its last potentiation.
    """

    NEURONS, PLATEAUS, VOTERS = 16384, 33, 40

    def __init__(self, random: np.random.Generator, inputs: int, flip: bool) -> None:
        super().__init__(random, inputs)
        self._flip, self._kernels = flip, cpu_kernels()
        self._synapses = self._kernels.zeros(self.UNITS, words_for(self.NEURONS))
        self._labels = np.full(self.NEURONS, -1, np.int64)

    @property
    def stored(self) -> int:
        return self._seen

    @property
    def nbytes(self) -> int:
        return int(self._synapses.nbytes + self._labels.nbytes + self._projection.nbytes)

    def fit(self, images: F32, labels: I64) -> None:
        keys = np.frombuffer(b"".join(self._keys(len(labels))), np.uint64).reshape(-1, 2)
        up, down = self._kernels.recruit(keys, np.zeros(self.NEURONS, np.int32), self.PLATEAUS, 1)
        self._kernels.store(self._synapses, self._codes(images), up, down, self._flip)
        for neurons, label in zip(up, labels, strict=True):
            self._labels[neurons] = label

    def predict(self, images: F32) -> I64:
        neurons, sums = self._kernels.strongest(self._synapses, self._codes(images), self.VOTERS)
        votes = np.zeros((len(images), CLASSES))
        known = self._labels[neurons] >= 0
        rows = np.broadcast_to(np.arange(len(images))[:, None], neurons.shape)
        np.add.at(votes, (rows[known], self._labels[neurons][known]), sums[known].astype(np.float64) ** 4)
        return _best(votes)
