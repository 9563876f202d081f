"""Selection of antineutrinos: pairs of a stream, cuts, classifiers, operating points, explanations."""
