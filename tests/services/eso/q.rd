<resource schema="eso" resdir="eso">
  <meta name="title">Observations in ObsCore (test)</meta>
  <meta name="creationDate">2026-11-24T00:00:00Z</meta>
  <meta name="description">Observations of Sgr A* that ESO's archive once answered with, for tests on this machine</meta>
  <meta name="creator">astrobio</meta>
  <meta name="subject">observations</meta>
  <table id="observations" onDisk="True" adql="True">
    <mixin
      dataproduct_subtype="NULL" obs_title="NULL" obs_creator_did="NULL" access_format="NULL"
      access_estsize="NULL" target_class="NULL" s_fov="NULL" s_region="NULL" s_resolution="NULL"
      t_max="NULL" t_resolution="NULL" em_min="NULL" em_max="NULL" em_res_power="NULL" o_ucd="NULL"
      pol_states="NULL" facility_name="NULL" s_xel1="NULL" s_xel2="NULL" t_xel="NULL" em_xel="NULL"
      pol_xel="NULL" s_pixel_scale="NULL" em_ucd="NULL" preview="NULL"
    >//obscore#publishObscoreLike</mixin>
    <column name="obs_publisher_did" type="text" description="obs_publisher_did"/>
    <column name="obs_id" type="text" description="obs_id"/>
    <column name="target_name" type="text" description="target_name"/>
    <column name="instrument_name" type="text" description="instrument_name"/>
    <column name="obs_collection" type="text" description="obs_collection"/>
    <column name="dataproduct_type" type="text" description="dataproduct_type"/>
    <column name="calib_level" type="smallint" required="True" description="calib_level"/>
    <column name="s_ra" type="double precision" description="s_ra"/>
    <column name="s_dec" type="double precision" description="s_dec"/>
    <column name="t_min" type="double precision" description="t_min"/>
    <column name="t_exptime" type="real" description="t_exptime"/>
    <column name="access_url" type="text" description="access_url"/>
  </table>
  <data id="import">
    <sources>observations.csv</sources>
    <csvGrammar/>
    <make table="observations">
      <rowmaker idmaps="*">
        <map key="calib_level">0</map>
        <map key="dataproduct_type">"visibility"</map>
      </rowmaker>
    </make>
  </data>
</resource>
