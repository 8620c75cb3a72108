"""Physical constants and unit conversions. Every value carries its unit and source.

Sources: CODATA 2018/2022 (NIST), IAU 2015 Resolution B3 nominal values, and those named line by line.
"""

BOLTZMANN = 1.380649e-23  # J/K, exact (SI 2019)
AVOGADRO = 6.02214076e23  # 1/mol, exact (SI 2019)
GAS_CONSTANT = 8.314462618  # J/(mol K), exact product of the two above
PLANCK = 6.62607015e-34  # J s, exact (SI 2019)
SPEED_OF_LIGHT = 299_792_458.0  # m/s, exact
STEFAN_BOLTZMANN = 5.670374419e-8  # W/(m2 K4), CODATA 2018
GRAVITATIONAL_CONSTANT = 6.67430e-11  # m3/(kg s2), CODATA 2018
ATOMIC_MASS = 1.66053906660e-27  # kg, CODATA 2018

SOLAR_RADIUS = 6.957e8  # m, IAU 2015 B3 nominal
SOLAR_LUMINOSITY = 3.828e26  # W, IAU 2015 B3 nominal
SOLAR_GM = 1.3271244e20  # m3/s2, IAU 2015 B3 nominal
SOLAR_TEMPERATURE = 5772.0  # K, IAU 2015 B3 nominal
EARTH_RADIUS = 6.3781e6  # m, IAU 2015 B3 nominal equatorial
EARTH_GM = 3.986004e14  # m3/s2, IAU 2015 B3 nominal
EARTH_GRAVITY = 9.81  # m/s2, conventional mean
EARTH_MASS = EARTH_GM / GRAVITATIONAL_CONSTANT  # kg
JUPITER_RADIUS = 7.1492e7  # m, IAU 2015 B3 nominal equatorial
JUPITER_GM = 1.2668653e17  # m3/s2, IAU 2015 B3 nominal
SOLAR_CONSTANT = 1361.0  # W/m2, Kopp & Lean 2011, doi:10.1029/2010GL045777
ASTRONOMICAL_UNIT = 1.495978707e11  # m, exact (IAU 2012 B2)

BAR = 1.0e5  # Pa
PPM = 1.0e-6  # fraction
DAY = 86_400.0  # s
YEAR = 365.25 * DAY  # s, Julian year
PRESENT_O2 = 0.21  # volume fraction of O2 in Earth's air ("1 PAL" = 0.21 bar at 1 bar)
DOBSON_UNIT = 2.6868e16  # molecules/cm2 (Loschmidt's number times 1e-3 cm)
TMOL_PER_YEAR = 3.74e9  # molecules/(cm2 s) for 1 Tmol/yr spread over Earth's surface
METABOLITE_RANGE = (1e-6, 1e-2)  # M, physiological concentrations (Bennett et al. 2009, doi:10.1038/nchembio.186)
MELTING_POINT = 273.15  # K, of water at 1 bar
BIOCHEMICAL_TEMPERATURE = 298.15  # K, of eQuilibrator's standard conditions
