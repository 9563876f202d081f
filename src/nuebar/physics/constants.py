"""Physical constants, each with its source; units are in the names.

Sources: the exact SI units of 2019; CODATA 2022 (https://physics.nist.gov/constants), whose masses PDG 2024
(S. Navas et al., Phys. Rev. D 110, 030001) lists too; and PDG 2024 for the neutron lifetime.
"""

# Exact by the definition of the SI (2019).
ELEMENTARY_CHARGE_C = 1.602176634e-19
AVOGADRO_per_mol = 6.02214076e23
PLANCK_J_s = 6.62607015e-34
SPEED_OF_LIGHT_m_s = 299_792_458.0

# Exact: one electronvolt is the elementary charge times one volt.
MEV_TO_J = ELEMENTARY_CHARGE_C * 1e6

# Exact by derivation: hbar c = h c / (2 pi e) and hbar = h / (2 pi e); CODATA prints 197.326 980 4 MeV fm.
HBARC_eV_m = 1.973269804593025e-7
HBARC_MeV_cm = HBARC_eV_m * 1e-4
HBAR_MeV_s = HBARC_eV_m * 1e-6 / SPEED_OF_LIGHT_m_s

# CODATA 2022.
ELECTRON_MASS_MeV = 0.51099895069
PROTON_MASS_MeV = 938.27208943
NEUTRON_MASS_MeV = 939.56542194
FINE_STRUCTURE = 7.2973525643e-3
CLASSICAL_ELECTRON_RADIUS_cm = 2.8179403205e-13

# CODATA 2022 and PDG 2024: G_F/(hbar c)^3 = 1.166 378 7(6)e-5 GeV^-2.
G_FERMI_per_MeV2 = 1.1663787e-11
# The same coupling as an energy times a volume, for potentials such as sqrt(2) G_F n_e: 8.962e-50 MeV m^3.
G_FERMI_MeV_m3 = G_FERMI_per_MeV2 * (HBARC_eV_m * 1e-6) ** 3

# PDG 2024, "n mean life": 878.4 +- 0.5 s, the average of the storage experiments.
NEUTRON_LIFETIME_s = 878.4

# Conversions, exact by definition.
SECONDS_PER_DAY = 86_400.0
DAYS_PER_YEAR = 365.25
CM_PER_KM = 1e5
CM_PER_M = 1e2
