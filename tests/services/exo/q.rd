<resource schema="exo" resdir="exo">
  <meta name="title">Planetary systems, composite parameters (test)</meta>
  <meta name="creationDate">2026-11-24T00:00:00Z</meta>
  <meta name="description">Rows of the NASA Exoplanet Archive's pscomppars, for tests on this machine</meta>
  <meta name="creator">astrobio</meta>
  <meta name="subject">exoplanets</meta>
  <table id="pscomppars" onDisk="True" adql="True">
    <column name="pl_name" type="text" ucd="meta.id;meta.main" description="planet"/>
    <column name="hostname" type="text" ucd="meta.id" description="host"/>
    <column name="discoverymethod" type="text" description="method"/>
    <column name="disc_year" type="integer" required="False" description="year"><values nullLiteral="-1"/></column>
    <column name="sy_snum" type="integer" required="False" description="stars"><values nullLiteral="-1"/></column>
    <column name="sy_pnum" type="integer" required="False" description="planets"><values nullLiteral="-1"/></column>
    <column name="sy_dist" type="double precision" unit="pc" description="distance"/>
    <column name="ra" type="double precision" unit="deg" ucd="pos.eq.ra;meta.main" description="right ascension"/>
    <column name="dec" type="double precision" unit="deg" ucd="pos.eq.dec;meta.main" description="declination"/>
    <column name="pl_orbper" type="double precision" unit="d" description="period"/>
    <column name="pl_rade" type="double precision" unit="Rearth" description="radius"/>
    <column name="pl_bmasse" type="double precision" unit="Mearth" description="mass"/>
    <column name="pl_eqt" type="double precision" unit="K" description="equilibrium temperature"/>
    <column name="st_teff" type="double precision" unit="K" description="host temperature"/>
    <column name="st_rad" type="double precision" unit="Rsun" description="host radius"/>
    <column name="st_mass" type="double precision" unit="Msun" description="host mass"/>
    <column name="pl_orbsmax" type="double precision" unit="AU" description="semi-major axis"/>
    <column name="pl_insol" type="double precision" description="insolation, Earth = 1"/>
    <column name="pl_orbeccen" type="double precision" description="eccentricity"/>
    <column name="st_lum" type="double precision" description="log10 luminosity, Sun = 0"/>
    <column name="st_spectype" type="text" description="spectral type"/>
    <column name="st_met" type="double precision" unit="dex" description="metallicity"/>
  </table>
  <data id="import">
    <sources>planets.csv</sources>
    <csvGrammar>
      <rowfilter>
        <code>
          for name in ("pl_orbsmax", "pl_insol", "pl_orbeccen", "st_lum", "st_spectype", "st_met"):
            row.setdefault(name, None)
          yield {name: (value if value not in ("", None) else None) for name, value in row.items()}
        </code>
      </rowfilter>
    </csvGrammar>
    <make table="pscomppars"><rowmaker idmaps="*"/></make>
  </data>
</resource>
